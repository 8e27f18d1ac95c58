"""A subscription notices that its server is dead although the connection stays open. The server here is a dumb one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from shardline_cluster.queue.lane_names import LaneNames
from shardline_cluster.queue.published import Subscribed, Wake
from shardline_cluster.queue.redis_connection import RedisAddress
from shardline_cluster.queue.redis_subscription import listen_to_lane
from shardline_cluster.queue.terms import QueueTerms

NAMES = LaneNames("test", "lane")
IMPATIENT = replace(QueueTerms(), silence_ms=20, call_timeout_ms=100, reconnect_ms=100)
CONFIRMATION = b"*3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n"


def wake_message() -> bytes:
    channel = NAMES.wake_channel("leader").encode()
    return b"*3\r\n$8\r\nsmessage\r\n$%d\r\n%s\r\n$0\r\n\r\n" % (len(channel), channel)


class DumbServer:
    """Confirms subscriptions. Whether it answers a PING is for the test to say."""

    def __init__(self, *, answers_pings: bool) -> None:
        self.num_pings = 0
        self.connections: list[asyncio.StreamWriter] = []
        self.serving: list[asyncio.Task[None] | None] = []
        self._answers_pings = answers_pings

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections.append(writer)
        self.serving.append(asyncio.current_task())
        while line := await reader.readline():
            if line == b"SSUBSCRIBE\r\n":
                writer.write(2 * CONFIRMATION)
            elif line == b"PING\r\n":
                self.num_pings += 1
                if self._answers_pings:
                    writer.write(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        writer.close()


@asynccontextmanager
async def listening(server: DumbServer, folder: Path) -> AsyncIterator[AsyncIterator[object]]:
    path = folder / "socket"
    messages = listen_to_lane(RedisAddress.parse(f"unix://{path}"), NAMES, "leader", terms=IMPATIENT)
    async with await asyncio.start_unix_server(server.serve, path):
        try:
            yield messages
        finally:
            await messages.aclose()  # type: ignore[attr-defined]
            await asyncio.gather(*filter(None, server.serving))  # the client has hung up


async def test_a_server_that_gives_no_sign_of_life_is_left(tmp_path: Path) -> None:
    server = DumbServer(answers_pings=False)
    async with listening(server, tmp_path) as messages:
        assert await anext(messages) == Subscribed()

        assert await asyncio.wait_for(anext(messages), 20) == Subscribed()

        assert server.num_pings == 1
        assert len(server.connections) == 2


async def test_a_server_that_answers_is_kept_however_long_it_has_nothing_to_say(tmp_path: Path) -> None:
    server = DumbServer(answers_pings=True)
    async with listening(server, tmp_path) as messages:
        assert await anext(messages) == Subscribed()
        read = asyncio.ensure_future(anext(messages))
        while server.num_pings < 3:  # noqa: ASYNC110 - counted by the server's own loop
            await asyncio.sleep(0.01)

        server.connections[0].write(wake_message())

        assert await asyncio.wait_for(read, 20) == Wake()
        assert len(server.connections) == 1


async def test_a_message_that_comes_in_two_pieces_with_a_silence_between_them_is_whole(tmp_path: Path) -> None:
    server = DumbServer(answers_pings=False)  # no honest server answers in the middle of a message
    message = wake_message()
    async with listening(server, tmp_path) as messages:
        assert await anext(messages) == Subscribed()
        read = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)  # the read begins
        server.connections[0].write(message[:30])
        while server.num_pings < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        server.connections[0].write(message[30:])

        assert await asyncio.wait_for(read, 20) == Wake()
