"""What a router does in a lane whoever its clients are: it listens, sweeps, attaches, detaches, restores.

The thin, asynchronous shell around `LaneStreams`, whose decisions it carries to the queue and whose answers it brings
back. What got no answer is sent again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Iterable
from contextlib import suppress

from shardline_cluster.errors import QueueUnavailableError, ShardlineError
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.published import Published
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from shardline_cluster.router.background_tasks import BackgroundTasks
from shardline_cluster.router.streams.lane_calls import AttachStream, DetachStream, LaneCall, RestoreRequest
from shardline_cluster.router.streams.lane_streams import LaneStreams
from shardline_cluster.router.streams.queue_caller import FIRST_PAUSE_S, QueueCaller, now_ms

log = logging.getLogger(__name__)

MOST_CALLS_AT_ONCE = 64  # attaches, detaches and restores: a new server identity brings one for each stream


class LaneDuties:
    """One lane's calls and loops."""

    def __init__(self, queue: RequestQueue, lane: LaneStreams, tasks: BackgroundTasks) -> None:
        """`tasks` runs them, and ends with `close`."""
        self._queue = queue
        self._lane = lane
        self._tasks = tasks
        self._room = asyncio.Semaphore(MOST_CALLS_AT_ONCE)
        self._closed = False
        self.num_attaches = 0  # readings of a log that were begun
        self.caller = QueueCaller(queue, lane, self.carry_out)

    def start(self) -> None:
        """Registers, subscribes and sweeps from now on."""
        member = Member(incarnation=self._lane.incarnation, role=MemberRole.ROUTER)
        self._tasks.spawn(self.caller.ask(lambda: self._queue.register(member)))
        self._tasks.spawn(self._listen())
        self._tasks.spawn(self._sweep())

    async def close(self, last: Iterable[LaneCall]) -> None:
        """Ends everything, and makes these last calls as far as the queue answers soon. The queue stays open."""
        self._closed = True
        await self._tasks.cancel_all()
        limit_s = 2 * self._queue.terms.call_timeout_ms / 1000
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(self._farewell, last)), limit_s)

    def carry_out(self, calls: Iterable[LaneCall]) -> None:
        """Begins to do what was decided; what its answers lead to follows by itself."""
        for call in calls:
            if not self._closed:
                self._tasks.spawn(self._answer_of(call))

    async def _answer_of(self, call: LaneCall) -> None:
        async with self._room:
            if isinstance(call, AttachStream):
                await self._attach(call)
            elif isinstance(call, DetachStream):
                await self.caller.ask(lambda: self._detach(call))
            else:
                await self._restore(call)

    async def _attach(self, call: AttachStream) -> None:
        self.num_attaches += 1
        try:
            reply = await self.caller.ask(
                lambda: self._queue.attach(
                    self._lane.incarnation, call.number, call.request_id, call.tenant, held=call.held
                )
            )
        except Exception as error:
            self._lane.attach_failed(call, _told(error))
            raise
        self.carry_out(self._lane.attached(call, reply.value, in_hold=reply.in_hold, now_ms=now_ms()))

    async def _restore(self, request: RestoreRequest) -> None:
        answer = None
        try:
            answer = (await self.caller.ask(lambda: self._queue.restore(request.call))).value
        finally:
            self.carry_out(self._lane.restored(request.call, answer, now_ms()))

    def _detach(self, call: DetachStream) -> Awaitable[Reply[None]]:
        return self._queue.detach(self._lane.incarnation, call.number, call.request_id)

    async def _farewell(self, call: LaneCall) -> None:
        if isinstance(call, DetachStream):
            with suppress(QueueUnavailableError):
                await self._detach(call)

    # --- loops ---

    async def _listen(self) -> None:
        while True:
            try:
                await self._read_messages()
            except Exception:
                log.exception("listening to lane %s failed and begins anew", self._queue.lane)
            await asyncio.sleep(FIRST_PAUSE_S)

    async def _read_messages(self) -> None:
        async for message in self._queue.listen(self._lane.incarnation):
            if isinstance(message, Published):
                self.carry_out(self._lane.published(message, now_ms()))
            else:
                self.carry_out(self._lane.resubscribed(now_ms()))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._queue.terms.sweep_ms / 1000 * random.uniform(0.75, 1.25))
            try:
                answered = await self.caller.try_once(lambda: self._queue.sweep(self._lane.incarnation))
            except ShardlineError as error:
                log.error("sweeping lane %s failed: %s", self._queue.lane, error)
                continue
            if answered is not None:
                self.carry_out(self._lane.look_after(now_ms()))


def _told(error: Exception) -> ShardlineError:
    """What readers hear of a call that failed."""
    if isinstance(error, ShardlineError):
        return error
    return ShardlineError("the router failed unexpectedly while it read the request; its log says more")
