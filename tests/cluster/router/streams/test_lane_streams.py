"""The router's side of the protocol, interleaving by interleaving, against the real queue in memory.

The server's clock and the network are the test's: what is not carried out or read has not happened yet.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from shardline_cluster.errors import DataLossError, QueueUnavailableError, UnknownRequestError
from shardline_cluster.queue.answers import Gone, OnHold, RestoreAnswer, RestoreCode
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import DisconnectAction, RequestEnd, RequestState, SequenceLog
from shardline_cluster.router.streams.lane_calls import AttachStream, DetachStream, LaneCall, RestoreRequest
from shardline_cluster.router.streams.stream_reader import StreamReader
from tests.cluster.router.scripted_leader import LENGTH, STOP, ScriptedLeader
from tests.cluster.router.stepped_router import LANE, SteppedRouter, SteppedServer, submission

ID = LANE + "-" + "0" * 32
StartRouter = Callable[[str], Awaitable[SteppedRouter]]


@pytest.fixture
async def world() -> SteppedServer:
    world = SteppedServer()
    await world.past_the_hold()
    return world


@pytest.fixture
async def start(world: SteppedServer) -> AsyncIterator[StartRouter]:
    routers: list[SteppedRouter] = []

    async def start_router(incarnation: str) -> SteppedRouter:
        router = SteppedRouter(world, incarnation)
        routers.append(router)
        await router.start()
        return router

    yield start_router
    for router in routers:
        await router.stop()


@pytest.fixture
async def router(start: StartRouter) -> SteppedRouter:
    return await start("router-1")


@pytest.fixture
def leader(world: SteppedServer) -> ScriptedLeader:
    return ScriptedLeader(world.queue())


def _drawn(router: SteppedRouter) -> str:
    assert router.lane.identity is not None
    return router.lane.identity


def _cursor(*ids: int) -> bytes:
    return encode_cursor(advance(Cursor.start(1), 0, pack_ids(ids), closed=False))


async def _silence(world: SteppedServer, router: SteppedRouter) -> list[LaneCall]:
    """Lets so much time pass that silent streams are read again; tells with which calls."""
    world.clock_ms += router.lane.terms.silence_ms
    await router.sweep()
    return list(router.calls)


async def _log(router: SteppedRouter) -> tuple[int, ...]:
    return unpack_ids((await router.look(ID)).logs[0].ids)


# --- the plain way ---------------------------------------------------------------------------------------------------


async def test_a_stream_gets_what_is_committed_in_order_and_then_the_end(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
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
    fast = await router.submit_and_open(submission(ID, _drawn(router)))
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
    info = await router.submit(submission(ID, _drawn(router), num_sequences=3))
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
    await router.submit_and_open(submission(ID, _drawn(router)))

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
    owner = await router.submit_and_open(submission(ID, _drawn(router)))
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
    keyed = submission(ID, _drawn(router), idempotency_key="k")
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
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    await router.submit_and_open(keyed)
    await router.settle()

    await router.submit(keyed, wanted=False)

    assert router.calls == []


async def test_a_background_request_has_no_listener_to_detach(router: SteppedRouter) -> None:
    await router.submit(submission(ID, _drawn(router), background=True), wanted=False)

    assert router.calls == []


async def test_of_a_stream_that_is_whole_nothing_more_is_asked(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await router.settle()

    silent = await _silence(world, router)
    resubscribed = router.lane.resubscribed(router.now_ms)
    await router.cancel(ID)

    assert (silent, resubscribed, router.calls) == ([], [], [])
    assert router.take(reader) == (1,)


async def test_a_whole_stream_is_read_to_its_end_although_another_run_lives_by_now(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
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
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
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


# --- lost, late and early messages -----------------------------------------------------------------------------------


async def test_a_lost_message_is_made_good_when_nothing_was_delivered_for_too_long(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await router.settle()
    world.server.lose_messages()
    await leader.commit(ID, [1], finish=STOP)

    world.clock_ms += router.lane.terms.silence_ms - 1
    await router.sweep()
    await router.settle()
    early = router.take(reader)
    world.clock_ms += 1
    await router.sweep()
    await router.settle()

    assert early == ()
    assert router.take(reader) == (1,)


async def test_a_silent_stream_is_not_read_again_from_its_beginning(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await leader.claim()
    await leader.commit(ID, [1, 2])
    await router.settle()
    await _silence(world, router)  # what was delivered since the first reading is read once more
    await router.settle()
    world.server.lose_messages()
    await leader.commit(ID, [3], finish=STOP)

    (attach,) = await _silence(world, router)
    await router.carry_out(attach)

    assert isinstance(attach, AttachStream)
    assert attach.held == (2,)
    assert router.calls == []
    assert router.take(reader) == (1, 2, 3)
    assert router.lane.stream_of(reader).complete


async def test_another_server_is_read_from_the_beginning(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit_and_open(submission(ID, _drawn(router)))
    await leader.claim()
    await leader.commit(ID, [1, 2])
    await router.settle()
    await _silence(world, router)
    await router.settle()
    world.server.rollback(world.server.snapshot())

    await router.sweep()
    (restore,) = router.of_kind(RestoreRequest)
    await router.carry_out(restore)

    (attach,) = router.of_kind(AttachStream)
    assert isinstance(attach, AttachStream)
    assert attach.held == ()


async def test_a_record_that_was_made_anew_is_read_from_the_beginning(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    reader = await router.submit_and_open(keyed)
    await leader.claim()
    await leader.commit(ID, [1, 2])
    await router.settle()
    await _silence(world, router)
    await router.settle()
    assert router.take(reader) == (1, 2)
    await router.stop()  # hears nothing of what follows
    other = await start("router-2")
    await other.cancel(ID)
    await other.queue.forget(ID, "default")
    world.clock_ms += 10
    await other.submit(keyed)
    await leader.claim()
    await leader.commit(ID, [7, 8, 9])

    await _silence(world, router)
    await router.settle()

    with pytest.raises(DataLossError, match="differ"):
        router.take(reader)


async def test_a_message_past_a_gap_is_not_delivered_but_makes_the_router_read(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await router.settle()
    world.server.lose_messages()
    await leader.commit(ID, [1])
    await leader.commit(ID, [2])
    await router.messages_come()

    router.read_messages()
    before = router.take(reader)
    await router.settle()

    assert before == ()
    assert router.take(reader) == (1, 2)


async def test_a_finish_published_between_reading_and_the_answer_is_not_missed(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1])
    reader = router.open(ID)
    attach = router.calls[-1]

    hand_over = await router.execute(attach)  # the log is read now
    await leader.commit(ID, [2], finish=STOP)
    await router.messages_come()
    router.read_messages()  # of no use yet: the router does not know the request
    hand_over()
    await router.settle()

    update = router.lane.stream_of(reader).take(reader)
    assert unpack_ids(update.sequences[0].ids) == (1, 2)
    assert update.end is not None


async def test_a_confirmed_subscription_makes_the_router_read_what_it_may_have_missed(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await router.settle()
    world.server.go_down()
    world.server.come_up()
    world.server.lose_messages()
    await leader.commit(ID, [1])

    await router.settle()
    await router.messages_come()
    await router.settle()

    assert router.take(reader) == (1,)


async def test_an_answer_to_an_older_attach_is_ignored(router: SteppedRouter, leader: ScriptedLeader) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    older = router.calls[-1]
    hand_over = await router.execute(older)
    router.open(ID)  # attaches again, with a higher number
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()

    hand_over()

    assert router.take(reader) == (1,)
    assert router.calls == []


# --- coming and going ------------------------------------------------------------------------------------------------


async def test_a_detach_overtaken_by_a_new_attach_takes_nothing_away(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    cancelling = submission(ID, _drawn(router), on_disconnect=DisconnectAction.CANCEL)
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
    cancelling = submission(ID, _drawn(router), on_disconnect=DisconnectAction.CANCEL)
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
    await router.submit(submission(ID, _drawn(router), on_disconnect=DisconnectAction.CANCEL, background=True))
    reader = router.open(ID)
    attach = router.calls[-1]
    router.leave(reader)
    await router.carry_out(router.calls[-1])  # the detach runs first and finds no listener

    await router.carry_out(attach)
    await router.settle()

    assert (await router.look(ID)).state is RequestState.CANCELLED


async def test_a_submit_whose_client_is_gone_is_detached(router: SteppedRouter) -> None:
    cancelling = submission(ID, _drawn(router), on_disconnect=DisconnectAction.CANCEL)

    await router.submit(cancelling, wanted=False)
    await router.settle()

    assert (await router.look(ID)).state is RequestState.CANCELLED


async def test_a_slow_reader_reads_on_from_memory_when_the_record_is_gone(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
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
    await router.submit_and_open(submission(ID, _drawn(router)))
    await router.submit_and_open(submission(other_id, _drawn(router), on_disconnect=DisconnectAction.CANCEL))
    reader = router.open(ID)
    await router.settle()

    router.calls += router.lane.shut_down(QueueUnavailableError("go elsewhere"))
    calls = list(router.calls)

    assert [c.request_id for c in calls if isinstance(c, DetachStream)] == [ID]
    assert isinstance(reader.failure, QueueUnavailableError)
    assert router.lane.num_streams == 0


# --- cursors ---------------------------------------------------------------------------------------------------------


async def test_a_cursor_goes_on_behind_what_it_covers(router: SteppedRouter, leader: ScriptedLeader) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1, 2, 3])

    reader = router.open(ID, _cursor(1, 2))
    await router.settle()

    assert router.take(reader) == (3,)


async def test_a_cursor_over_other_ids_is_data_loss_and_names_the_offset(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1, 2, 3])

    reader = router.open(ID, _cursor(1, 9))
    await router.settle()

    with pytest.raises(DataLossError, match="before or at token 2"):
        router.take(reader)


@pytest.mark.parametrize(("seen", "is_lost"), [((1, 2), False), ((1, 9), True)])
async def test_a_cursor_past_the_log_waits_and_is_checked_when_the_log_gets_there(
    router: SteppedRouter, leader: ScriptedLeader, seen: tuple[int, ...], is_lost: bool
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1])
    reader = router.open(ID, _cursor(*seen))
    await router.settle()
    waiting = router.take(reader)

    await leader.commit(ID, [2, 3])
    await router.settle()

    assert waiting == ()
    if is_lost:
        with pytest.raises(DataLossError):
            router.take(reader)
    else:
        assert router.take(reader) == (3,)


async def test_a_cursor_past_the_log_of_an_ended_request_is_data_loss(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)

    reader = router.open(ID, _cursor(1, 2))
    await router.settle()

    with pytest.raises(DataLossError, match="the log ended at token 1"):
        router.take(reader)


# --- a server that forgets -------------------------------------------------------------------------------------------


async def test_forgotten_tokens_are_restored_before_the_router_attaches_again(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await leader.commit(ID, [1])
    snapshot = world.server.snapshot()
    await leader.commit(ID, [2, 3])
    await router.settle()
    seen = router.take(reader)
    world.server.rollback(snapshot)

    await router.sweep()
    duties = list(router.calls)
    await router.settle()

    assert [type(call) for call in duties] == [RestoreRequest]
    assert await _log(router) == seen == (1, 2, 3)
    assert await leader.commit(ID, [4]) is not None
    await router.settle()
    assert router.take(reader) == (4,)


async def test_a_restore_from_memory_does_not_count_for_a_stream_that_was_opened_meanwhile(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    info = await router.submit(submission(ID, _drawn(router)), wanted=False)
    await router.settle()
    world.server.rollback(world.server.snapshot())
    await router.sweep()
    reader = router.open(ID, info=info)

    await router.settle()
    await leader.claim()
    world.clock_ms += router.lane.terms.hold_ms
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await _silence(world, router)
    await router.settle()

    assert router.take(reader) == (1,)


async def test_a_reader_that_leaves_twice_leaves_once(router: SteppedRouter) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    other = router.open(ID)
    await router.settle()

    router.leave(reader)
    router.leave(reader)
    assert router.calls == []

    router.leave(other)
    router.leave(other)
    assert [type(call) for call in router.calls] == [DetachStream]


async def test_nothing_is_attached_while_its_restore_is_under_way(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    world.server.rollback(None)
    await router.sweep()
    restore = router.calls[0]

    await router.messages_come()
    router.read_messages()  # the subscription is confirmed anew
    router.open(ID)
    during = list(router.calls)
    await router.carry_out(restore)

    assert during == [restore]
    assert [type(call) for call in router.calls] == [AttachStream]
    assert reader.failure is None


@pytest.mark.parametrize("what", ["submit", "stream that was left", "cancel", "end"])
async def test_what_a_router_saw_lately_is_restored_also_when_its_client_is_gone(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader, what: str
) -> None:
    keep = submission(ID, _drawn(router), on_disconnect=DisconnectAction.CONTINUE)
    await router.submit(replace(keep, background=True))
    await leader.claim()
    if what in ("stream that was left", "end"):
        reader = router.open(ID)
        await router.settle()
        await leader.commit(ID, [1], finish=STOP if what == "end" else None)
        await router.settle()
        router.leave(reader)
        await router.settle()
    if what == "cancel":
        await router.cancel(ID)
    before = await router.look(ID)

    world.server.rollback(None)
    await router.sweep()
    await router.settle()

    after = await router.look(ID)
    assert after.logs == before.logs
    assert after.info == before.info
    assert (after.end and after.end.state) == (before.end and before.end.state)


async def test_a_memory_does_not_age_through_an_outage(world: SteppedServer, router: SteppedRouter) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await router.settle()

    world.clock_ms += 20 * router.lane.terms.lately_ms  # nobody answers meanwhile
    world.server.rollback(None)
    await router.sweep()
    await router.settle()

    assert (await router.look(ID)).info.id == ID


async def test_a_memory_ends_when_the_same_server_has_answered_for_long_enough(
    world: SteppedServer, router: SteppedRouter
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    for _ in range(2 + router.lane.terms.lately_ms // 1000):
        world.clock_ms += 1000
        await router.sweep()

    assert len(router.lane.recent) == 0


async def test_a_duplicate_of_what_was_read_lately_leaves_the_memory_whole(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    reader = await router.submit_and_open(keyed)
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()
    router.leave(reader)
    await router.settle()

    await router.submit(keyed, wanted=False)
    await router.settle()
    world.server.rollback(world.server.snapshot())
    await router.sweep()

    (restore,) = router.of_kind(RestoreRequest)
    assert isinstance(restore, RestoreRequest)
    assert unpack_ids(restore.call.logs[0].ids) == (1,)


async def test_what_was_forgotten_on_demand_is_not_restored(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await router.cancel(ID)
    await router.queue.forget(ID, "default")

    router.lane.forgotten(ID)
    world.server.rollback(None)
    await router.sweep()

    assert router.of_kind(RestoreRequest) == []


async def test_a_message_of_the_old_server_read_after_the_rollback_is_not_delivered(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await router.settle()
    snapshot = world.server.snapshot()
    await leader.commit(ID, [1])  # published, and then forgotten by the server
    await router.messages_come()
    world.server.rollback(snapshot)
    await router.sweep()
    await router.settle(reading=False)

    router.read_messages()

    assert router.take(reader) == ()
    assert [type(call) for call in router.calls] == [AttachStream]


async def test_a_message_of_a_server_that_the_router_does_not_know_yet_leads_to_restore_before_attach(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()
    world.server.rollback(world.server.snapshot())
    await leader.commit(ID, [2])
    await router.messages_come()

    router.read_messages()
    await router.carry_out(router.calls[0])  # its answer tells the new identity

    assert router.take(reader) == (1,)
    assert [type(call) for call in router.calls] == [RestoreRequest]
    await router.settle()
    assert router.take(reader) == (2,)


async def test_an_answer_of_an_earlier_server_is_stale_only_if_it_was_asked_before_the_change(
    router: SteppedRouter,
) -> None:
    asked_in = router.lane.generation
    old = _drawn(router)
    router.lane.answered("new", router.now_ms)

    assert router.lane.stale(old, asked_in=asked_in)
    assert not router.lane.stale(old, asked_in=router.lane.generation)  # the old server is back
    assert not router.lane.stale("new", asked_in=asked_in)


async def test_a_router_that_slept_through_the_hold_does_not_join_its_tokens_to_a_new_owners(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await router.settle()
    snapshot = world.server.snapshot()
    await leader.commit(ID, [1])
    await router.settle()
    assert router.take(reader) == (1,)
    world.server.rollback(snapshot)
    await world.queue().view()
    world.clock_ms += 3 * router.lane.terms.lease_ms  # the hold and the leader's lease are over
    other = ScriptedLeader(world.queue(), "leader-2")
    while not await other.claim():
        world.clock_ms += router.lane.terms.sweep_ms
    await other.commit(ID, [7, 8])

    await router.sweep()
    await router.settle()

    with pytest.raises(DataLossError, match="token 0"):
        router.take(reader)
    fresh = router.open(ID)
    await router.settle()
    assert router.take(fresh) == (7, 8)


async def test_ids_from_which_the_log_differs_are_not_delivered_to_who_has_not_had_them(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, _drawn(router)))
    await router.settle()
    await leader.claim()
    await router.settle()
    snapshot = world.server.snapshot()
    await leader.commit(ID, [1])
    await router.settle()
    world.server.rollback(snapshot)
    forgetful = ScriptedLeader(world.queue())
    forgetful.held, forgetful.lengths = dict(leader.held), {(ID, 0): 0}
    await forgetful.commit(ID, [7])

    await router.sweep()
    await router.carry_out(router.calls[0])  # the restore; the attach is still to come
    between = router.take(reader)
    await router.settle()

    assert between == ()
    assert router.take(reader) == (7,)


async def test_in_a_hold_an_unknown_id_is_asked_for_again(
    world: SteppedServer, start: StartRouter, router: SteppedRouter
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    other = await start("router-2")
    world.server.rollback(None)
    reader = other.open(ID)
    await other.settle()
    assert other.take(reader) == ()
    assert (await other.queue.look(ID, "default")).value == OnHold()

    await router.sweep()
    await router.settle()  # this one remembers it
    world.clock_ms += other.lane.terms.silence_ms
    await other.sweep()
    await other.settle()

    assert reader.verified


async def test_a_cursor_past_the_log_waits_in_a_hold_and_is_lost_after_it_where_nobody_can_restore(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1])
    await router.cancel(ID)
    world.server.rollback(world.server.snapshot())
    fresh = await start("router-2")  # the first one and the leader are dead
    reader = fresh.open(ID, _cursor(1, 2))

    await fresh.settle()

    with pytest.raises(DataLossError, match="2 tokens were delivered, but the log ended at token 1"):
        fresh.take(reader)


async def test_an_end_that_lies_past_what_is_held_is_told_to_no_server(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, _drawn(router), background=True))
    await leader.claim()
    await leader.commit(ID, [1, 2])
    told = await router.look(ID)
    end = RequestEnd(RequestState.CANCELLED, (2,), (None,))
    router.open(ID)
    attach = router.calls.pop()
    assert isinstance(attach, AttachStream)
    short = replace(told, state=RequestState.CANCELLED, logs=(SequenceLog(pack_ids([1])),), end=end)

    router.lane.attached(attach, short, in_hold=True, now_ms=router.now_ms)
    (restore,) = router.lane.answered("another server", router.now_ms)

    assert isinstance(restore, RestoreRequest)
    assert (restore.call.logs[0].num_tokens, restore.call.end) == (1, None)


# --- other runs under the same id ------------------------------------------------------------------------------------


async def test_a_router_that_slept_learns_that_its_run_ended_long_ago(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    reader = await router.submit_and_open(keyed)
    await router.settle()
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()
    assert router.take(reader) == (1,)
    await leader.commit(ID, [2], finish=STOP)
    await router.stop()  # sleeps: hears nothing
    router.messages.clear()
    other = await start("router-2")
    world.clock_ms += 2 * keyed.retention_ms
    await other.sweep()
    await other.submit_and_open(keyed)
    await other.settle()
    await leader.claim()
    await leader.commit(ID, [7])
    world.server.rollback(world.server.snapshot())

    await router.sweep()
    await router.settle()

    with pytest.raises(DataLossError, match="another run"):
        router.take(reader)
    assert await _log(other) == (7,)


async def test_a_twin_submitted_again_after_a_rollback_and_the_restored_first_are_one_request(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    first = await router.submit_and_open(keyed)
    await router.settle()
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()
    assert router.take(first) == (1,)
    other = await start("router-2")
    world.clock_ms += 10
    world.server.rollback(None)
    second = await other.submit_and_open(replace(keyed, drawn="another"))
    await other.settle()

    await router.sweep()
    await router.settle()
    world.clock_ms += other.lane.terms.silence_ms
    await other.sweep()
    await other.settle()

    assert other.take(second) == (1,)
    assert router.take(first) == ()
    assert (await other.look(ID)).info.submitted_ms == world.clock_ms - other.lane.terms.silence_ms - 10


async def test_a_stream_that_was_never_read_goes_over_to_the_other_run(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    reader = await router.submit_and_open(keyed)
    await router.settle()
    await router.cancel(ID)
    await router.settle()
    world.clock_ms += 2 * keyed.retention_ms
    await router.sweep()

    again = await router.submit_and_open(keyed)
    at_once = router.lane.stream_of(again).take(again)
    await router.settle()
    await leader.claim()
    await leader.commit(ID, [7])
    await router.settle()

    assert at_once.end is None
    assert router.take(again) == (7,)
    assert router.take(reader) == (7,)


async def test_another_run_of_what_was_read_lately_begins_with_nothing(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, _drawn(router), idempotency_key="k")
    first = await router.submit_and_open(keyed)
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await router.settle()
    router.leave(first)
    world.clock_ms += 2 * keyed.retention_ms

    second = await router.submit_and_open(keyed)
    at_once = router.lane.stream_of(second).take(second)

    assert (at_once.sequences, at_once.end) == ((), None)
