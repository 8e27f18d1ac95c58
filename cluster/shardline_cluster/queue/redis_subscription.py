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
    """What arrives. After a silence the server is asked for a sign of life: a dead connection may stay open for long.

    The pending read is kept across silences: a read that is given up in the middle of a message would lose it.
    """
    was_asked = False
    read = asyncio.ensure_future(connection.read_response())
    try:
        while True:
            limit_ms = terms.call_timeout_ms if was_asked else terms.silence_ms
            done, _ = await asyncio.wait({read}, timeout=limit_ms / 1000)
            if done:
                yield read.result()
                was_asked = False
                read = asyncio.ensure_future(connection.read_response())
            elif was_asked:
                raise OSError("the subscription gives no sign of life")
            else:
                was_asked = True
                await connection.send_command("PING")
    finally:
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)


def open_message(reply: object, wake_channel: str) -> Iterator[QueueMessage]:
    """The messages in what a subscription read; none in a confirmation or an answer to PING."""
    if not isinstance(reply, list) or reply[0] != b"smessage":
        return
    if reply[1] == wake_channel.encode():
        yield Wake()
    else:
        yield from read_publications(reply[2])
