"""Sends calls to a lane's queue until they are answered, and sees by each answer whether the server is another one.

One method of the queue is one attempt; this is where a router resends, and where it knows that the queue is away.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from shardline_cluster.router.streams.lane_calls import LaneCall
from shardline_cluster.router.streams.lane_streams import LaneStreams

T = TypeVar("T")

FIRST_PAUSE_S = 0.05  # before a call that got no answer is sent again; doubles up to the terms' reconnect_ms


class QueueCaller:
    """Calls of one router to one lane."""

    def __init__(self, queue: RequestQueue, lane: LaneStreams, carry_out: Callable[[Iterable[LaneCall]], None]) -> None:
        """`carry_out` takes the duties that a new identity brings; they are begun before the answer is looked at."""
        self._queue = queue
        self._lane = lane
        self._carry_out = carry_out
        self._failing_since_ms: float | None = None

    @property
    def available(self) -> bool:
        """Whether the queue has answered, and not failed to for longer than one time-out."""
        if self._lane.identity is None:
            return False
        failing = self._failing_since_ms
        return failing is None or now_ms() - failing < self._queue.terms.call_timeout_ms

    @property
    def identity(self) -> str:
        """The server's identity as last answered.

        Raises:
            QueueUnavailableError: nothing was answered yet, or not for a while.
        """
        if self._lane.identity is None or not self.available:
            raise QueueUnavailableError(
                f"the queue of lane {self._queue.lane} does not answer; nothing was accepted, try again in a second"
            )
        return self._lane.identity

    async def ask(self, attempt: Callable[[], Awaitable[Reply[T]]]) -> Reply[T]:
        """Sends a call, always the same, until it is answered."""
        pause_s = FIRST_PAUSE_S
        while (reply := await self.try_once(attempt)) is None:
            if self._failing_since_ms is not None:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))
                pause_s = min(2 * pause_s, self._queue.terms.reconnect_ms / 1000)
        return reply

    async def try_once(self, attempt: Callable[[], Awaitable[Reply[T]]]) -> Reply[T] | None:
        """Sends a call; None where no answer came, or only one of an earlier server, read late."""
        asked_in = self._lane.generation
        try:
            reply = await attempt()
        except QueueUnavailableError:
            self._failing_since_ms = now_ms() if self._failing_since_ms is None else self._failing_since_ms
            return None
        if self._lane.stale(reply.identity, asked_in=asked_in):
            return None
        self._failing_since_ms = None
        self._carry_out(self._lane.answered(reply.identity, now_ms()))
        return reply


def now_ms() -> float:
    """An instant of the event loop's clock in milliseconds."""
    return asyncio.get_running_loop().time() * 1000
