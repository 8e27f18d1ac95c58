"""The router's side of the protocol, interleaving by interleaving, against the real queue in memory: streams as they
go, and readers that come and leave.

The server's clock and the network are the test's: what is not carried out or read has not happened yet. What else can
happen to a stream stands in the files beside this one.
"""

from dataclasses import replace

import pytest

from shardline_cluster.errors import QueueUnavailableError, UnknownRequestError
from shardline_cluster.queue.answers import Gone, RestoreAnswer, RestoreCode
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import DisconnectAction, RequestState
from shardline_cluster.router.streams.lane_calls import AttachStream, DetachStream, RestoreRequest
from shardline_cluster.router.streams.stream_reader import StreamReader
from tests.cluster.router.scripted_leader import LENGTH, STOP, ScriptedLeader
from tests.cluster.router.stepped_router import ID, LANE, StartRouter, SteppedRouter, SteppedServer, submission


async def test_a_stream_gets_what_is_committed_in_order_and_then_the_end(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
    await router.settle()
    await leader.claim()

    await leader.commit(ID, [1, 2])
    await router.settle()
    first = router.take(reader)
    await leader.commit(ID, [3], finish=STOP)
    await router.settle()
    update = router.lane.stream_of(reader).take(reader)

    assert first == (1, 2)
    assert unpack_ids(update.sequences[0].ids) == (3,)
    assert update.sequences[0].finish == STOP
    assert update.end is not None
    assert update.end.state is RequestState.DONE
    router.leave(reader)
    assert router.calls == []  # of an ended request there is nothing to detach


async def test_readers_of_one_request_share_its_stream_and_each_has_its_own_place(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    fast = await router.submit_and_open(submission(ID, router.drawn))
    slow = router.open(ID)
    await router.settle()
    await leader.claim()

    for token in (1, 2, 3):
        await leader.commit(ID, [token])
        await router.settle()
        assert router.take(fast) == (token,)

    assert router.take(slow) == (1, 2, 3)
    assert router.lane.num_streams == 1


async def test_three_sequences_of_different_lengths_go_on_each_from_its_own_offset(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    info = await router.submit(submission(ID, router.drawn, num_sequences=3))
    await leader.claim()
    await leader.commit(ID, [1, 2], sequence=0)
    await leader.commit(ID, [9], sequence=2, finish=LENGTH)
    cursor = Cursor.start(3)
    for sequence, ids, closed in ((0, [1], False), (2, [9], True)):
        cursor = advance(cursor, sequence, pack_ids(ids), closed=closed)

    reader = router.open(ID, encode_cursor(cursor), info)
    await router.settle()
    update = router.lane.stream_of(reader).take(reader)

    assert [(s.sequence, s.offset, unpack_ids(s.ids)) for s in update.sequences] == [(0, 1, (2,))]


async def test_a_request_of_another_tenant_does_not_exist(router: SteppedRouter) -> None:
    await router.submit_and_open(submission(ID, router.drawn))

    with pytest.raises(UnknownRequestError, match="does not exist"):
        router.lane.open(ID, "another", b"", info=None, on_change=lambda: None, now_ms=router.now_ms)


async def test_whoever_asks_for_anothers_id_first_does_not_keep_him_from_it(router: SteppedRouter) -> None:
    def asks(tenant: str) -> StreamReader:
        reader, calls = router.lane.open(ID, tenant, b"", info=None, on_change=lambda: None, now_ms=router.now_ms)
        router.calls += calls
        return reader

    stranger = asks("another")
    with pytest.raises(QueueUnavailableError, match="is being looked for: try again"):
        asks("default")
    owner = await router.submit_and_open(submission(ID, router.drawn))
    await router.settle()

    assert isinstance(stranger.failure, UnknownRequestError)
    assert owner.failure is None and owner.verified
    router.leave(stranger)
    assert router.lane.stream_of(owner).readers == [owner]


async def test_an_id_that_never_was_is_unknown(router: SteppedRouter) -> None:
    reader = router.open(ID)

    await router.settle()

    with pytest.raises(UnknownRequestError, match=ID):
        router.take(reader)


async def test_a_duplicate_submit_joins_the_stream_that_is_open(router: SteppedRouter, leader: ScriptedLeader) -> None:
    keyed = submission(ID, router.drawn, idempotency_key="k")
    first = await router.submit_and_open(keyed)
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()
    assert router.take(first) == (1,)

    second = await router.submit_and_open(keyed)
    await router.settle()
    await leader.commit(ID, [2])
    await router.settle()

    assert router.take(first) == (2,)
    assert router.take(second) == (1, 2)


async def test_a_duplicate_whose_client_is_gone_takes_nothing_from_those_who_read(router: SteppedRouter) -> None:
    keyed = submission(ID, router.drawn, idempotency_key="k")
    await router.submit_and_open(keyed)
    await router.settle()

    await router.submit(keyed, wanted=False)

    assert router.calls == []


async def test_a_background_request_has_no_listener_to_detach(router: SteppedRouter) -> None:
    await router.submit(submission(ID, router.drawn, background=True), wanted=False)

    assert router.calls == []


async def test_of_a_stream_that_is_whole_nothing_more_is_asked(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await router.settle()

    silent = await router.silence()
    resubscribed = router.lane.resubscribed(router.now_ms)
    await router.cancel(ID)

    assert (silent, resubscribed, router.calls) == ([], [], [])
    assert router.take(reader) == (1,)


async def test_a_whole_stream_is_read_to_its_end_although_another_run_lives_by_now(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await router.settle()
    (restore,) = router.lane.answered("another server", router.now_ms)
    assert isinstance(restore, RestoreRequest)

    router.lane.restored(restore.call, RestoreAnswer(RestoreCode.OTHER), router.now_ms)

    assert router.lane.stream_of(reader).take(reader).end is not None


async def test_who_reads_what_another_client_had_forgotten_is_told_that_it_does_not_exist(
    router: SteppedRouter,
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
    (restore,) = router.lane.answered("another server", router.now_ms)
    assert isinstance(restore, RestoreRequest)

    (attach,) = router.lane.restored(restore.call, RestoreAnswer(RestoreCode.FORGOTTEN), router.now_ms)
    assert isinstance(attach, AttachStream)
    router.lane.attached(attach, Gone(), in_hold=False, now_ms=router.now_ms)

    assert isinstance(reader.failure, UnknownRequestError)


async def test_the_refusal_of_an_older_attach_says_nothing(router: SteppedRouter) -> None:
    reader = router.open(ID)
    older = router.calls.pop()
    router.open(ID)
    assert isinstance(older, AttachStream)

    router.lane.attach_failed(older, QueueUnavailableError("refused"))
    router.lane.attach_failed(replace(older, request_id="unknown"), QueueUnavailableError("refused"))

    assert reader.failure is None


async def test_a_detach_overtaken_by_a_new_attach_takes_nothing_away(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    cancelling = submission(ID, router.drawn, on_disconnect=DisconnectAction.CANCEL)
    reader = await router.submit_and_open(cancelling)
    await router.settle()
    await leader.claim()
    router.leave(reader)
    late_detach = router.calls[-1]
    again = router.open(ID)
    await router.carry_out(router.calls[-1])

    await router.carry_out(late_detach)
    await leader.commit(ID, [1])
    await router.settle()

    assert router.take(again) == (1,)


async def test_the_last_reader_that_leaves_detaches_the_request(router: SteppedRouter) -> None:
    cancelling = submission(ID, router.drawn, on_disconnect=DisconnectAction.CANCEL)
    one, other = await router.submit_and_open(cancelling), router.open(ID)
    await router.settle()

    router.leave(one)
    await router.settle()
    between = (await router.look(ID)).state
    router.leave(other)
    await router.settle()

    assert between is RequestState.WAITING
    assert (await router.look(ID)).state is RequestState.CANCELLED


async def test_an_attach_answered_for_a_stream_that_nobody_wants_any_more_is_detached(router: SteppedRouter) -> None:
    await router.submit(submission(ID, router.drawn, on_disconnect=DisconnectAction.CANCEL, background=True))
    reader = router.open(ID)
    attach = router.calls[-1]
    router.leave(reader)
    await router.carry_out(router.calls[-1])  # the detach runs first and finds no listener

    await router.carry_out(attach)
    await router.settle()

    assert (await router.look(ID)).state is RequestState.CANCELLED


async def test_a_submit_whose_client_is_gone_is_detached(router: SteppedRouter) -> None:
    cancelling = submission(ID, router.drawn, on_disconnect=DisconnectAction.CANCEL)

    await router.submit(cancelling, wanted=False)
    await router.settle()

    assert (await router.look(ID)).state is RequestState.CANCELLED


async def test_a_slow_reader_reads_on_from_memory_when_the_record_is_gone(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
    await router.settle()
    await leader.claim()
    await leader.commit(ID, [1, 2, 3], finish=STOP)
    await router.settle()
    world.clock_ms += 2 * 600_000
    await router.sweep()
    router.open(ID)
    await router.settle()

    assert router.take(reader) == (1, 2, 3)
    assert (await router.queue.look(ID, "default")).value == Gone()


async def test_a_closing_router_detaches_all_but_what_would_be_cancelled(
    start: StartRouter, router: SteppedRouter
) -> None:
    other_id = LANE + "-" + "1" * 32
    await router.submit_and_open(submission(ID, router.drawn))
    await router.submit_and_open(submission(other_id, router.drawn, on_disconnect=DisconnectAction.CANCEL))
    reader = router.open(ID)
    await router.settle()

    router.calls += router.lane.shut_down(QueueUnavailableError("go elsewhere"))
    calls = list(router.calls)

    assert [c.request_id for c in calls if isinstance(c, DetachStream)] == [ID]
    assert isinstance(reader.failure, QueueUnavailableError)
    assert router.lane.num_streams == 0
