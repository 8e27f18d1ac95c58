"""`LaneStreams` on a real queue in memory, with the network in the test's hands: each call and message is delivered
when, as often and in the order that the test says.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shardline_cluster.access.caller import DEFAULT_TENANT
from shardline_cluster.queue.answers import Accepted, Duplicate, Ended, Snapshot
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.published import Published, Subscribed
from shardline_cluster.queue.records import RequestInfo, Submission
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.streams.lane_calls import AttachStream, LaneCall, RestoreRequest
from shardline_cluster.router.streams.lane_streams import LaneStreams
from shardline_cluster.router.streams.stream_reader import StreamReader
from tests.cluster.queue.lane_calls import a_submission

LANE = "lane"
ID = LANE + "-" + "0" * 32
START_MS = 1_700_000_000_000


class SteppedServer:
    """A server on a clock that only the test moves, past its first hold."""

    def __init__(self, terms: QueueTerms | None = None) -> None:
        self.clock_ms = START_MS
        self.server = MemoryServer(terms or QueueTerms(), now_ms=lambda: self.clock_ms)

    def queue(self) -> MemoryRequestQueue:
        return MemoryRequestQueue(self.server, LANE)

    async def past_the_hold(self) -> None:
        await self.queue().view()
        self.clock_ms += self.server.terms.hold_ms


def submission(request_id: str, drawn: str, **changes: Any) -> Submission:
    """A request of one sequence without a key, of the tenant that everybody is."""
    plain: dict[str, Any] = {
        "id": request_id,
        "payload": b"",
        "tenant": DEFAULT_TENANT,
        "prompt_tokens": 3,
        "max_tokens": 100,
    }
    return a_submission(drawn, **(plain | changes))


def cursor_over(*ids: int) -> bytes:
    """The cursor of a client that has these ids of one sequence."""
    return encode_cursor(advance(Cursor.start(1), 0, pack_ids(ids), closed=False))


class SteppedRouter:
    """One router; `calls` are decided and not yet carried out, `messages` published and not yet read."""

    def __init__(self, world: SteppedServer, incarnation: str = "router-1") -> None:
        self.world = world
        self.queue = world.queue()
        self.lane = LaneStreams(incarnation, self.queue.terms)
        self.calls: list[LaneCall] = []
        self.messages: list[Published | Subscribed] = []
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._listening = asyncio.create_task(self._listen())
        await self.sweep()
        await self.settle()

    async def stop(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        async for message in self.queue.listen(self.lane.incarnation):
            assert isinstance(message, Published | Subscribed)
            self.messages.append(message)

    @property
    def now_ms(self) -> float:
        return float(self.world.clock_ms)

    @property
    def drawn(self) -> str:
        """The server's identity, as this router knows it."""
        assert self.lane.identity is not None
        return self.lane.identity

    # --- what clients do ---

    async def submit(self, request: Submission, *, wanted: bool = True) -> RequestInfo:
        number = self.lane.next_number()
        reply = await self.queue.submit(self.lane.incarnation, number, request)
        self._heard(reply)
        assert isinstance(reply.value, Accepted | Duplicate), reply
        self.calls += self.lane.submitted(reply.value.info, number, wanted=wanted)
        return reply.value.info

    def open(self, request_id: str, cursor: bytes = b"", info: RequestInfo | None = None) -> StreamReader:
        reader, calls = self.lane.open(
            request_id, "default", cursor, info=info, on_change=lambda: None, now_ms=self.now_ms
        )
        self.calls += calls
        return reader

    async def submit_and_open(self, request: Submission) -> StreamReader:
        info = await self.submit(request)
        return self.open(info.id, info=info)

    def leave(self, reader: StreamReader) -> None:
        self.calls += self.lane.leave(reader)

    def take(self, reader: StreamReader) -> tuple[int, ...]:
        """The ids of the first sequence that the reader had not had."""
        update = self.lane.stream_of(reader).take(reader)
        return tuple(i for s in update.sequences if s.sequence == 0 for i in unpack_ids(s.ids))

    # --- the network ---

    async def sweep(self) -> None:
        self._heard(await self.queue.sweep(self.lane.incarnation))
        self.calls += self.lane.look_after(self.now_ms)

    async def silence(self) -> list[LaneCall]:
        """Lets so much time pass that silent streams are read again; tells with which calls."""
        self.world.clock_ms += self.lane.terms.silence_ms
        await self.sweep()
        return list(self.calls)

    async def settle(self, *, reading: bool = True) -> None:
        """Carries everything out, and reads what was published unless told otherwise."""
        await self._let_messages_come()
        while self.calls or (reading and self.messages):
            while self.calls:
                await self.carry_out(self.calls[0])
            if reading:
                self.read_messages()
            await self._let_messages_come()

    def read_messages(self) -> None:
        messages, self.messages[:] = list(self.messages), []
        for message in messages:
            if isinstance(message, Published):
                self.calls += self.lane.published(message, self.now_ms)
            else:
                self.calls += self.lane.resubscribed(self.now_ms)

    async def messages_come(self) -> list[Published]:
        await self._let_messages_come()
        return [message for message in self.messages if isinstance(message, Published)]

    async def _let_messages_come(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def carry_out(self, call: LaneCall) -> None:
        """Executes a call that was decided, and hands its answer over."""
        (await self.execute(call))()

    async def execute(self, call: LaneCall) -> Callable[[], None]:
        """Executes a call; what is returned hands the answer over, whenever the test wants it."""
        self.calls = [c for c in self.calls if c is not call]
        if isinstance(call, AttachStream):
            attached = await self.queue.attach(
                self.lane.incarnation, call.number, call.request_id, call.tenant, held=call.held
            )
            return lambda: self._answer(
                attached,
                lambda: self.lane.attached(call, attached.value, in_hold=attached.in_hold, now_ms=self.now_ms),
            )
        if isinstance(call, RestoreRequest):
            restored = await self.queue.restore(call.call)
            return lambda: self._answer(restored, lambda: self.lane.restored(call.call, restored.value, self.now_ms))
        detached = await self.queue.detach(self.lane.incarnation, call.number, call.request_id)
        return lambda: self._answer(detached, list)

    async def cancel(self, request_id: str) -> object:
        reply = await self.queue.cancel(request_id, "default")
        self._heard(reply)
        if isinstance(reply.value, Ended):
            self.calls += self.lane.cancelled(reply.value, self.now_ms)
        return reply.value

    async def look(self, request_id: str) -> Snapshot:
        value = (await self.queue.look(request_id, "default")).value
        assert isinstance(value, Snapshot), value
        return value

    async def log(self, request_id: str) -> tuple[int, ...]:
        """The ids of the first sequence in the server's log."""
        return unpack_ids((await self.look(request_id)).logs[0].ids)

    def of_kind(self, kind: type[LaneCall]) -> list[LaneCall]:
        return [call for call in self.calls if isinstance(call, kind)]

    def _answer(self, reply: Reply[Any], handle: Callable[[], list[LaneCall]]) -> None:
        self._heard(reply)
        self.calls += handle()

    def _heard(self, reply: Reply[Any]) -> None:
        self.calls += self.lane.answered(reply.identity, self.now_ms)


StartRouter = Callable[[str], Awaitable[SteppedRouter]]  # by its incarnation
