"""What clients want of a lane, asynchronously: streams, submits, cancels, looks. One for each lane of a router.

Decisions are `LaneStreams`', and what follows from them is `LaneDuties`'.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from shardline_cluster.errors import QueueUnavailableError, RequestNotEndedError, ShardlineError
from shardline_cluster.queue.answers import (
    Accepted,
    Duplicate,
    Ended,
    ForgetCode,
    Gone,
    LaneView,
    OnHold,
    Snapshot,
    SubmitAnswer,
)
from shardline_cluster.queue.records import RequestInfo, Submission
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from shardline_cluster.router.background_tasks import BackgroundTasks
from shardline_cluster.router.streams.client_stream import ClientStream
from shardline_cluster.router.streams.lane_duties import LaneDuties
from shardline_cluster.router.streams.lane_streams import LaneStreams, unknown_request
from shardline_cluster.router.streams.queue_caller import now_ms
from shardline_cluster.router.streams.stream_reader import StreamReader

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A submit that is under way, and whether its client still waits for it."""

    submission: Submission
    wanted: bool = True


class TokenStreams:
    """All streams of one lane in this router."""

    def __init__(self, queue: RequestQueue, incarnation: str) -> None:
        self._queue = queue
        self._lane = LaneStreams(incarnation, queue.terms)
        self._tasks = BackgroundTasks(f"lane {queue.lane}")
        self._duties = LaneDuties(queue, self._lane, self._tasks)
        self._caller = self._duties.caller
        self._closed_by: ShardlineError | None = None

    @property
    def queue(self) -> RequestQueue:
        """The lane's queue."""
        return self._queue

    @property
    def available(self) -> bool:
        """Whether new work can be taken: the queue answers."""
        return self._caller.available

    @property
    def num_attaches(self) -> int:
        """How often the log of some request was read."""
        return self._duties.num_attaches

    @property
    def identity(self) -> str:
        """The server's identity as last answered.

        Raises:
            QueueUnavailableError: nothing was answered yet, or not for a while.
        """
        return self._caller.identity

    def start(self) -> None:
        """Registers, subscribes and sweeps from now on."""
        self._duties.start()

    async def close(self, error: ShardlineError) -> None:
        """Tells all readers to go on elsewhere, detaches their streams, ends all tasks. The queue stays open."""
        self._closed_by = error
        await self._duties.close(self._lane.shut_down(error))

    # --- what clients want ---

    async def submit(self, submission: Submission) -> tuple[SubmitAnswer, ClientStream | None]:
        """Submits, and opens a stream of what was accepted unless it is a background request.

        Waits for as long as three time-outs. A submit that is answered later than that, or whose client is gone, is
        detached: it may have been accepted, and then its `on_disconnect` decides.

        Raises:
            QueueUnavailableError: no answer; the request may or may not have been accepted.
        """
        self._require_open()
        pending = _Pending(submission)
        task = self._tasks.spawn(self._submit(pending), for_client=True)
        try:
            return await self._patiently(task, 3 * self._queue.terms.call_timeout_ms)
        except (asyncio.CancelledError, QueueUnavailableError):
            pending.wanted = False
            _leave_unread(task)
            raise

    def read(
        self, request_id: str, tenant: str, cursor: bytes = b"", *, info: RequestInfo | None = None
    ) -> ClientStream:
        """A stream from a cursor on.

        Raises:
            UnknownRequestError: the request is another tenant's.
            ShardlineError: this router is being closed.
        """
        self._require_open()
        changed = asyncio.Event()
        reader, calls = self._lane.open(request_id, tenant, cursor, info=info, on_change=changed.set, now_ms=now_ms())
        self._duties.carry_out(calls)
        return ClientStream(self._lane.stream_of(reader), reader, changed=changed, leave=lambda: self._leave(reader))

    async def cancel(self, request_id: str, tenant: str) -> Ended:
        """Ends a request, or tells the end that it has. Asked until it is answered, also if the caller gives up.

        Raises:
            UnknownRequestError: there is no such request.
        """
        return await self._answer_for_client(self._cancel(request_id, tenant), goes_on=True)

    async def look(self, request_id: str, tenant: str) -> Snapshot:
        """Record and logs as they are now.

        Raises:
            UnknownRequestError: there is no such request.
            QueueUnavailableError: no answer.
        """
        return await self._answer_for_client(self._look(request_id, tenant))

    async def knows(self, request_id: str, tenant: str) -> bool:
        """Whether this very server shows such a request now; in a hold it may have forgotten it.

        Raises:
            QueueUnavailableError: no answer.
        """
        self._require_open()
        task = self._tasks.spawn(self._caller.ask(lambda: self._queue.look(request_id, tenant)), for_client=True)
        try:
            reply = await self._patiently(task, 3 * self._queue.terms.call_timeout_ms)
        finally:
            task.cancel()
        return isinstance(reply.value, Snapshot)

    async def forget(self, request_id: str, tenant: str) -> None:
        """Deletes an ended request.

        Raises:
            UnknownRequestError: there is no such request.
            RequestNotEndedError: it has not ended.
        """
        await self._answer_for_client(self._forget(request_id, tenant))

    async def view(self) -> LaneView:
        """Counters and members of the lane.

        Raises:
            QueueUnavailableError: no answer.
        """
        return (await self._answer_for_client(self._caller.ask(self._queue.view))).value

    async def is_needed(self) -> bool:
        """Whether a client reads here or a request has not ended; also where the queue does not say."""
        if self._lane.num_streams:
            return True
        try:
            view = await self.view()
        except QueueUnavailableError:
            return True
        return view.waiting_requests + view.handed_back_requests + view.running_requests > 0

    def forget_later(self, request_id: str, tenant: str, *, after_s: float) -> None:
        """Deletes an ended request after a while, if this router lives so long; else the sweep does it."""
        self._tasks.spawn(self._forget_later(request_id, tenant, after_s))

    # --- pieces of the above ---

    def _leave(self, reader: StreamReader) -> None:
        self._duties.carry_out(self._lane.leave(reader))

    def _require_open(self) -> None:
        if self._closed_by is not None:
            raise self._closed_by

    async def _submit(self, pending: _Pending) -> tuple[SubmitAnswer, ClientStream | None]:
        submission, number = pending.submission, self._lane.next_number()
        reply = await self._caller.ask(lambda: self._queue.submit(self._lane.incarnation, number, submission))
        answer = reply.value
        if not isinstance(answer, Accepted | Duplicate):
            return answer, None
        self._duties.carry_out(self._lane.submitted(answer.info, number, wanted=pending.wanted))
        if submission.background or not pending.wanted:
            return answer, None
        stream = self.read(answer.info.id, submission.tenant, info=answer.info)
        if isinstance(answer, Accepted):
            stream.skip_position(answer.position)
        return answer, stream

    async def _cancel(self, request_id: str, tenant: str) -> Ended:
        reply = await self._settled(lambda: self._queue.cancel(request_id, tenant))
        if not isinstance(reply.value, Ended):
            raise unknown_request(request_id)
        self._duties.carry_out(self._lane.cancelled(reply.value, now_ms()))
        return reply.value

    async def _look(self, request_id: str, tenant: str) -> Snapshot:
        reply = await self._settled(lambda: self._queue.look(request_id, tenant))
        if not isinstance(reply.value, Snapshot):
            raise unknown_request(request_id)
        return reply.value

    async def _forget(self, request_id: str, tenant: str) -> None:
        code = (await self._caller.ask(lambda: self._queue.forget(request_id, tenant))).value
        if code is ForgetCode.NOT_ENDED:
            raise RequestNotEndedError(f"request {request_id} has not ended: cancel it first, or wait for its end")
        self._lane.forgotten(request_id)
        if code is ForgetCode.GONE:
            raise unknown_request(request_id)

    async def _settled(self, attempt: Callable[[], Awaitable[Reply[T | OnHold | Gone]]]) -> Reply[T | OnHold | Gone]:
        """Asks again for as long as the lane is in a hold and the server may have forgotten the answer."""
        while True:
            reply = await self._caller.ask(attempt)
            if not isinstance(reply.value, OnHold):
                return reply
            await asyncio.sleep(self._queue.terms.call_timeout_ms / 1000)

    async def _forget_later(self, request_id: str, tenant: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with suppress(ShardlineError):
            await self._forget(request_id, tenant)

    async def _answer_for_client(self, work: Coroutine[Any, Any, T], *, goes_on: bool = False) -> T:
        """Waits for an answer for as long as a hold may last; `goes_on`: the work does not end with the waiting."""
        terms = self._queue.terms
        task = self._tasks.spawn(work, for_client=True)
        try:
            return await self._patiently(task, terms.hold_ms + 3 * terms.call_timeout_ms)
        finally:
            if not goes_on:
                task.cancel()

    async def _patiently(self, task: "asyncio.Task[T]", patience_ms: int) -> T:
        done, _ = await asyncio.wait([task], timeout=patience_ms / 1000)
        if task.cancelled():
            self._require_open()
        if not done or task.cancelled():
            raise QueueUnavailableError(
                f"the queue of lane {self._queue.lane} did not answer within {patience_ms / 1000:g} s; the call may "
                "have been carried out: send it again, a request with the same idempotency key"
            )
        return task.result()


def _leave_unread(task: "asyncio.Task[tuple[SubmitAnswer, ClientStream | None]]") -> None:
    if task.done() and not task.cancelled() and task.exception() is None:
        stream = task.result()[1]
        if stream is not None:
            stream.leave()
