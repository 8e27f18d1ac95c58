"""Sends a call to the queue until it is answered: the same arguments each time, so that resending changes nothing."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.terms import QueueTerms

T = TypeVar("T")

FIRST_PAUSE_S = 0.02

_LOG = logging.getLogger(__name__)


async def until_answered(send: Callable[[], Awaitable[T]], *, what: str, terms: QueueTerms) -> T:
    """Awaits `send()` until it does not raise QueueUnavailableError; pauses grow up to `terms.reconnect_ms`.

    Waits for ever where the queue stays away: callers are cancelled, or have a time limit of their own.
    """
    pause_s = FIRST_PAUSE_S
    failures = 0
    while True:
        try:
            answer = await send()
        except QueueUnavailableError as error:
            failures += 1
            if failures == 1:
                _LOG.info("%s got no answer and is sent again until it has one: %s", what, error)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, terms.reconnect_ms / 1000)
            continue
        if failures > 1:
            _LOG.info("%s was answered after %d tries", what, failures + 1)
        return answer
