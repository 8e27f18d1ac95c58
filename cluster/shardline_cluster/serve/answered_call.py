"""A call to Redis at a start: sent again until it is answered, but not for ever, as replicas and routers do."""

import asyncio
from collections.abc import Awaitable, Callable

from shardline_cluster.errors import QueueUnavailableError

PAUSE_S = 0.05


async def answered_within(send: Callable[[], Awaitable[None]], *, within_s: float) -> None:
    """Awaits `send()`, the same idempotent call each time, until it does not raise QueueUnavailableError.

    Raises:
        QueueUnavailableError: the last one, once so many seconds are over.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + within_s
    while True:
        try:
            await send()
        except QueueUnavailableError:
            if loop.time() >= give_up_s:
                raise
            await asyncio.sleep(PAUSE_S)
        else:
            return
