"""The shell around the protocol: resends, patience, holds, and clients that give up at every moment."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from shardline_cluster.errors import (
    QueueUnavailableError,
    RequestNotEndedError,
    ShuttingDownError,
    UnknownRequestError,
)
from shardline_cluster.queue.answers import Accepted, Duplicate, Gone, OnHold, Snapshot
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.records import DisconnectAction, RequestState
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.streams.client_stream import ClientStream
from shardline_cluster.router.streams.token_streams import TokenStreams
from tests.cluster.router.router_bench import available
from tests.cluster.router.scripted_leader import STOP, ScriptedLeader
from tests.cluster.router.stepped_router import LANE, submission

ID = LANE + "-" + "0" * 32
# The shortest terms that are allowed: nothing here waits for long.
TERMS = QueueTerms(
    lease_ms=1_000,
    heartbeat_ms=200,
    hold_ms=800,
    sweep_ms=100,
    call_timeout_ms=200,
    reconnect_ms=100,
    silence_ms=400,
)


class _SlowLooks(MemoryRequestQueue):
    """Answers to `look` are read when the test says so."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, LANE)
        self.executed, self.may_read = asyncio.Event(), asyncio.Event()
        self.num_asked = 0

    async def look(self, request_id: str, tenant: str) -> Reply[Snapshot | OnHold | Gone]:
        self.num_asked += 1
        reply = await super().look(request_id, tenant)
        self.executed.set()
        await self.may_read.wait()
        return reply


class _Bench:
    def __init__(self) -> None:
        self.skew_ms = 0
        self.server = MemoryServer(TERMS, now_ms=lambda: time.time_ns() // 1_000_000 + self.skew_ms)
        self.queue = MemoryRequestQueue(self.server, LANE)
        self.slow = _SlowLooks(self.server)
        self.streams = TokenStreams(self.slow, "router-1")
        self.leader = ScriptedLeader(self.queue)

    async def state(self) -> RequestState | None:
        value = (await self.queue.look(ID, "default")).value
        return value.state if isinstance(value, Snapshot) else None

    async def eventually(self, state: RequestState) -> None:
        deadline = time.monotonic() + 20
        while await self.state() is not state:
            assert time.monotonic() < deadline, f"the request did not become {state}"
            await asyncio.sleep(0.01)


@pytest.fixture
async def bench() -> AsyncIterator[_Bench]:
    bench = _Bench()
    await bench.queue.view()
    bench.skew_ms += TERMS.hold_ms
    bench.streams.start()
    await available(bench.streams)
    yield bench
    await bench.streams.close(ShuttingDownError("the test is over"))


async def _ids(stream: ClientStream) -> tuple[int, ...]:
    await stream.opened()
    ids: list[int] = []
    while (update := await stream.next_update()) is not None:
        ids += [i for s in update.sequences for i in unpack_ids(s.ids)]
    return tuple(ids)


async def test_a_submit_whose_reply_was_lost_is_sent_again_and_is_one_request(bench: _Bench) -> None:
    bench.server.lose_replies()

    answer, stream = await bench.streams.submit(submission(ID, bench.streams.identity))
    await bench.leader.claim()
    await bench.leader.commit(ID, [1], finish=STOP)

    assert isinstance(answer, Duplicate)
    assert stream is not None
    assert await _ids(stream) == (1,)
    assert (await bench.queue.view()).value.waiting_requests == 0


async def test_a_submit_that_nobody_answers_is_given_up_and_detached_when_it_went_through_after_all(
    bench: _Bench,
) -> None:
    bench.server.go_down()

    with pytest.raises(QueueUnavailableError, match="send it again"):
        await bench.streams.submit(submission(ID, "x", on_disconnect=DisconnectAction.CANCEL))
    bench.server.come_up()

    await bench.eventually(RequestState.CANCELLED)


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_gives_up_during_its_submit_leaves_no_listener_behind(bench: _Bench, turns: int) -> None:
    submitting = asyncio.create_task(
        bench.streams.submit(submission(ID, bench.streams.identity, on_disconnect=DisconnectAction.CANCEL))
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    if submitting.done():
        stream = submitting.result()[1]
        assert stream is not None
        stream.leave()
    submitting.cancel()

    if turns:  # without a turn nothing was sent
        await bench.eventually(RequestState.CANCELLED)
    await asyncio.gather(submitting, return_exceptions=True)


async def test_a_background_submit_opens_no_stream(bench: _Bench) -> None:
    answer, stream = await bench.streams.submit(submission(ID, bench.streams.identity, background=True))

    assert isinstance(answer, Accepted)
    assert stream is None


async def test_while_nothing_answers_there_is_no_identity_to_draw_under(bench: _Bench) -> None:
    bench.server.go_down()
    deadline = time.monotonic() + 20
    while bench.streams.available:
        assert time.monotonic() < deadline, "the outage was not noticed"
        await asyncio.sleep(0.01)

    with pytest.raises(QueueUnavailableError, match="does not answer"):
        _ = bench.streams.identity

    bench.server.come_up()
    await available(bench.streams)


async def test_a_cancel_in_a_hold_is_asked_again_until_the_hold_is_over(bench: _Bench) -> None:
    _, stream = await bench.streams.submit(submission(ID, bench.streams.identity, background=True))
    assert stream is None
    bench.server.rollback(bench.server.snapshot())

    ended = await bench.streams.cancel(ID, "default")

    assert ended.end.state is RequestState.CANCELLED
    assert not (await bench.queue.view()).in_hold


async def test_a_cancel_goes_on_where_its_client_does_not_wait(bench: _Bench) -> None:
    await bench.streams.submit(submission(ID, bench.streams.identity, background=True))
    bench.server.go_down()
    cancelling = asyncio.create_task(bench.streams.cancel(ID, "default"))
    await asyncio.sleep(0.05)
    cancelling.cancel()
    await asyncio.gather(cancelling, return_exceptions=True)

    bench.server.come_up()

    await bench.eventually(RequestState.CANCELLED)


async def test_an_answer_of_an_earlier_server_that_is_read_late_is_dropped_and_the_call_sent_again(
    bench: _Bench,
) -> None:
    await bench.streams.submit(submission(ID, bench.streams.identity, background=True))
    looking = asyncio.create_task(bench.streams.look(ID, "default"))
    await bench.slow.executed.wait()
    bench.server.rollback(bench.server.snapshot())
    await bench.streams.view()  # brings the news
    bench.skew_ms += TERMS.hold_ms
    await bench.queue.cancel(ID, "default")

    bench.slow.may_read.set()

    assert (await looking).state is RequestState.CANCELLED
    assert bench.slow.num_asked == 2


async def test_unknown_and_unended_requests_are_errors_of_their_own(bench: _Bench) -> None:
    bench.slow.may_read.set()
    for call in (bench.streams.cancel, bench.streams.look, bench.streams.forget):
        with pytest.raises(UnknownRequestError):
            await call(ID, "default")
    await bench.streams.submit(submission(ID, bench.streams.identity, background=True))

    with pytest.raises(RequestNotEndedError, match="cancel it first"):
        await bench.streams.forget(ID, "default")
    with pytest.raises(UnknownRequestError):
        await bench.streams.look(ID, "another tenant")


async def test_streams_end_with_the_errors_of_a_router_that_closes(bench: _Bench) -> None:
    _, stream = await bench.streams.submit(submission(ID, bench.streams.identity))
    assert stream is not None
    reading = asyncio.create_task(_ids(stream))
    await asyncio.sleep(0.02)

    await bench.streams.close(ShuttingDownError("go elsewhere"))

    with pytest.raises(ShuttingDownError):
        await reading
    stream.leave()
    assert await bench.state() is RequestState.WAITING


async def test_a_rollback_while_many_streams_are_open_restores_all_of_them(bench: _Bench) -> None:
    ids = [f"{LANE}-{n:032x}" for n in range(100)]
    opened = [(await bench.streams.submit(submission(i, bench.streams.identity)))[1] for i in ids]
    empty = MemoryServer(TERMS).snapshot()
    bench.server.rollback(empty)

    deadline = time.monotonic() + 20
    while (await bench.queue.view()).value.waiting_requests < len(ids):
        assert time.monotonic() < deadline, "not everything was restored"
        await asyncio.sleep(0.02)

    bench.skew_ms += TERMS.hold_ms
    await bench.leader.claim()
    for request_id in ids:
        await bench.leader.commit(request_id, [7], finish=STOP)
    assert [await _ids(stream) for stream in opened if stream] == [(7,)] * len(ids)
