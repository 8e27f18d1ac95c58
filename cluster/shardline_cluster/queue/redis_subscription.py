"""Messages of a lane for one leader or router, over a connection that is opened again whenever it breaks."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from shardline_cluster.queue.lane_names import LaneNames
from shardline_cluster.queue.published import QueueMessage, Subscribed, Wake
from shardline_cluster.queue.redis_connection import RedisAddress
from shardline_cluster.queue.step_encoding import read_publications
from shardline_cluster.queue.terms import QueueTerms

FIRST_BACKOFF_S = 0.02


async def listen_to_lane(
    address: RedisAddress, names: LaneNames, incarnation: str, *, terms: QueueTerms
) -> AsyncIterator[QueueMessage]:
    """Yields `Subscribed` after each confirmation, and messages as they come, for as long as it is iterated."""
    channels = [names.wake_channel(incarnation), names.tokens_channel(incarnation)]
    backoff_s = FIRST_BACKOFF_S
    while True:
        connection = address.connection(timeout_s=terms.call_timeout_ms / 1000)
        try:
            async for message in _messages(connection, channels, terms):
                backoff_s = FIRST_BACKOFF_S
                yield message
        except (RedisError, OSError):
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, terms.reconnect_ms / 1000)
        finally:
            await connection.disconnect(nowait=True)


async def _messages(
    connection: AbstractConnection, channels: Sequence[str], terms: QueueTerms
) -> AsyncIterator[QueueMessage]:
    """One connection's messages, until it breaks."""
    async with asyncio.timeout(terms.call_timeout_ms / 1000):
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("SSUBSCRIBE", *channels)
        for _ in channels:
            await connection.read_response()
    yield Subscribed()
    async for reply in _replies(connection, terms):
        for message in open_message(reply, channels[0]):
            yield message


async def _replies(connection: AbstractConnection, terms: QueueTerms) -> AsyncIterator[object]:
    """What arrives. A read is never given up for a silence: one that is, in the middle of a message, would lose it."""
    guard = _SilenceGuard(connection, terms)
    watching = asyncio.ensure_future(guard.watch())
    try:
        while True:
            reply = await connection.read_response()
            guard.hear()
            yield reply
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _SilenceGuard:
    """Asks a silent server for a sign of life, since a dead connection may stay open for long, and closes it if there
    is none: its reader then meets the end."""

    def __init__(self, connection: AbstractConnection, terms: QueueTerms) -> None:
        self._connection = connection
        self._silence_s = terms.silence_ms / 1000
        self._answer_s = terms.call_timeout_ms / 1000
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()

    def hear(self) -> None:
        """Something has arrived."""
        self._heard_at = self._clock()

    async def watch(self) -> None:
        """Runs for as long as the connection lives."""
        while True:
            await asyncio.sleep(max(0.0, self._heard_at + self._silence_s - self._clock()))
            asked_at = self._clock()
            if asked_at < self._heard_at + self._silence_s:
                continue
            await self._connection.send_command("PING")
            await asyncio.sleep(self._answer_s)
            if self._heard_at < asked_at:
                await self._connection.disconnect(nowait=True)
                return


def open_message(reply: object, wake_channel: str) -> Iterator[QueueMessage]:
    """The messages in what a subscription read; none in a confirmation or an answer to PING."""
    if not isinstance(reply, list) or reply[0] != b"smessage":
        return
    if reply[1] == wake_channel.encode():
        yield Wake()
    else:
        yield from read_publications(reply[2])
