"""Contract of every request queue: the hold, and restoring what a server forgot."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import CommitCode, Gone, GrantedRequest, OnHold, RestoreAnswer, RestoreCode
from shardline_cluster.queue.calls import DeadMember, RestoreCall
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import (
    DisconnectAction,
    Grant,
    RequestEnd,
    RequestInfo,
    RequestState,
    SequenceFinish,
    SequenceLog,
)
from tests.cluster.queue.lane_calls import (
    STOP,
    TENANT,
    HandLeader,
    a_log,
    a_submission,
    log_ids,
    look,
    some,
    submit,
)
from tests.cluster.queue.lane_harness import LaneHarness


async def restore(
    harness: LaneHarness,
    info: RequestInfo,
    *logs: SequenceLog,
    grant: Grant | None = None,
    end: RequestEnd | None = None,
    by: str = "leader-1",
) -> RestoreAnswer:
    """One restore."""
    call = RestoreCall(incarnation=by, info=info, logs=logs, grant=grant, end=end)
    return (await harness.queue().restore(call)).value


async def ran_then_forgotten(harness: LaneHarness) -> tuple[HandLeader, GrantedRequest]:
    """A request that is claimed and has three tokens, in a server that knows neither claim nor tokens any more."""
    await submit(harness)
    snapshot = await harness.snapshot()
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1, 2, 3]))
    await harness.rollback(snapshot)
    return leader, granted


# --- the hold ----------------------------------------------------------------------------------------------------


async def test_another_server_begins_a_hold_once(harness: LaneHarness) -> None:
    identity = await harness.rollback(await harness.snapshot())

    first = await harness.queue().view()
    await harness.advance(harness.terms.hold_ms - 1)
    last = await harness.queue().view()
    await harness.advance(1)
    after = await harness.queue().view()

    assert [r.in_hold for r in (first, last, after)] == [True, True, False]
    assert {r.identity for r in (first, last, after)} == {identity}
    assert (last.value.hold_ends_ms, after.value.hold_ends_ms) == (first.now_ms + harness.terms.hold_ms, None)


async def test_an_empty_server_begins_with_a_hold_and_serves_what_is_fresh(harness: LaneHarness) -> None:
    await harness.rollback(None)
    info = await submit(harness)

    granted = await HandLeader(harness.queue()).claim_one()

    assert granted.info == info
    assert (await harness.queue().view()).in_hold


@pytest.mark.parametrize("why", ["key", "drawn before"])
async def test_what_may_be_older_than_the_hold_waits_for_its_end(harness: LaneHarness, why: str) -> None:
    old_identity = await harness.identity()
    identity = await harness.rollback(None)
    submission = (
        a_submission(identity, idempotency_key="k") if why == "key" else a_submission(old_identity, on_disconnect=GRACE)
    )
    await harness.queue().submit("router-1", 1, submission)
    leader = HandLeader(harness.queue())

    in_hold = await leader.claim()
    await harness.advance(harness.terms.hold_ms)
    after = await leader.claim()

    assert (len(in_hold), len(after)) == (0, 1)


async def test_an_unknown_id_is_on_hold_then_gone(harness: LaneHarness) -> None:
    await harness.rollback(await harness.snapshot())
    queue = harness.queue()

    in_hold = [
        (await queue.attach("router-1", 1, "lane-x", TENANT)).value,
        (await queue.look("lane-x", TENANT)).value,
        (await queue.cancel("lane-x", TENANT)).value,
    ]
    await harness.advance(harness.terms.hold_ms)
    after = (await queue.attach("router-1", 1, "lane-x", TENANT)).value

    assert in_hold == [OnHold()] * 3
    assert after == Gone()


async def test_nothing_old_ends_in_a_hold(harness: LaneHarness) -> None:
    kinds = (DisconnectAction.GRACE, DisconnectAction.CANCEL, DisconnectAction.GRACE)
    late, cut, graced = [
        await submit(harness, k, on_disconnect=kind, grace_ms=10, timeout_ms=1_000 if k == 0 else None)
        for k, kind in enumerate(kinds)
    ]
    await harness.queue().detach("router-1", 1, graced.id)
    await harness.rollback(await harness.snapshot())
    queue = harness.queue()
    await queue.view()
    await queue.detach("router-1", 1, cut.id)
    await harness.advance(harness.terms.hold_ms - 1)

    cancelled = (await queue.cancel(late.id, TENANT)).value
    for _ in range(2):
        await queue.sweep("router-1")
    states = [(await look(harness, info)).state for info in (late, cut, graced)]
    for _ in range(30):
        await harness.advance(1_000)
        await queue.sweep("router-1")
    after = [(await look(harness, info)).state for info in (late, cut, graced)]

    assert cancelled == OnHold()
    assert states == [RequestState.WAITING] * 3
    assert after == [RequestState.EXPIRED, RequestState.CANCELLED, RequestState.CANCELLED]


async def test_no_lease_ends_in_a_hold_and_none_that_it_cut_short_counts(harness: LaneHarness) -> None:
    info = await submit(harness)
    await harness.queue().sweep("router-1")
    await HandLeader(harness.queue()).claim_one()
    await harness.rollback(await harness.snapshot())
    await harness.queue().sweep("router-1")

    await harness.queue().sweep(None, [DeadMember("leader-1", had_drained=False)])
    for _ in range(5):
        await harness.advance(1_000)
        await harness.queue().sweep("router-1")
    in_hold = await look(harness, info)
    for _ in range(9):
        await harness.advance(1_000)
        await harness.queue().sweep("router-1")
    after = await look(harness, info)

    assert (in_hold.state, in_hold.attempts) == (RequestState.RUNNING, 0)
    assert (after.state, after.attempts) == (RequestState.WAITING, 0)


async def test_a_hold_takes_ids_but_no_finish(harness: LaneHarness) -> None:
    await submit(harness, num_sequences=2)
    leader = HandLeader(harness.queue())
    granted = (await leader.claim())[0]
    await harness.rollback(await harness.snapshot())

    both = (some(0, [1], STOP), some(0, [2], STOP, 1))
    held = await leader.commit(granted, *both)
    running = await look(harness, granted.info)
    await harness.advance(harness.terms.hold_ms)
    again = await leader.commit(granted, *both)

    assert (held.code, held.lengths, held.end) == (CommitCode.HELD, (1, 1), None)
    assert (running.state, [log.finish for log in running.logs]) == (RequestState.RUNNING, [None, None])
    assert again.code is CommitCode.OK
    assert again.end is not None
    assert again.end.state is RequestState.DONE


async def test_a_hold_takes_no_ids_past_a_deadline_and_no_error(harness: LaneHarness) -> None:
    await submit(harness, 1, timeout_ms=1_000)
    await submit(harness, 2)
    leader = HandLeader(harness.queue())
    late, broken = await leader.claim()
    await harness.rollback(await harness.snapshot())
    await leader.beat()
    await harness.advance(1_000)

    results = [await leader.commit(late, some(0, [1], STOP)), await leader.commit(broken, error="it broke")]

    assert [(r.code, r.lengths) for r in results] == [(CommitCode.HELD, (0,)), (CommitCode.HELD, (0,))]


async def test_a_finish_of_what_is_fresh_is_no_matter_of_the_hold(harness: LaneHarness) -> None:
    await harness.rollback(None)
    await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()

    result = await leader.commit(granted, some(0, [1], STOP))

    assert result.end is not None
    assert result.end.state is RequestState.DONE


# --- restoring ---------------------------------------------------------------------------------------------------


async def test_a_missing_record_comes_back_whole(harness: LaneHarness) -> None:
    leader, granted = await ran_then_forgotten(harness)
    await harness.rollback(None)

    answer = await restore(harness, granted.info, a_log(1, 2, 3), grant=granted.grant)
    snapshot = await look(harness, granted.info)
    result = await leader.commit(granted, some(3, [4]))

    assert answer.code is RestoreCode.OK
    assert (snapshot.state, snapshot.epoch, snapshot.info) == (RequestState.RUNNING, 1, granted.info)
    assert log_ids(snapshot.logs) == [1, 2, 3]
    assert (result.code, result.lengths) == (CommitCode.OK, (4,))


async def test_a_forgotten_claim_is_adopted_in_the_hold(harness: LaneHarness) -> None:
    leader, granted = await ran_then_forgotten(harness)

    fenced = await leader.commit(granted, some(3, [4]))
    answers = [await restore(harness, granted.info, a_log(1, 2, 3, 4), grant=granted.grant) for _ in range(2)]
    result = await leader.commit(granted, some(4, [5]))

    assert (fenced.code, fenced.epoch) == (CommitCode.FENCED, 0)
    assert [a.code for a in answers] == [RestoreCode.OK] * 2
    assert result.lengths == (5,)
    assert (await leader.beat()).num_held == 1


async def test_a_forgotten_claim_is_not_adopted_after_the_hold(harness: LaneHarness) -> None:
    _, granted = await ran_then_forgotten(harness)
    await harness.queue().view()
    await harness.advance(harness.terms.hold_ms)

    answer = await restore(harness, granted.info, a_log(1, 2, 3), grant=granted.grant)

    assert answer.code is RestoreCode.REFUSED
    snapshot = await look(harness, granted.info)
    assert (snapshot.state, log_ids(snapshot.logs)) == (RequestState.WAITING, [1, 2, 3])


async def test_a_lower_grant_is_refused_and_an_earlier_owner_loses_it(harness: LaneHarness) -> None:
    await submit(harness)
    first, second = (HandLeader(harness.queue(), name) for name in ("leader-1", "leader-2"))
    old = await first.claim_one()
    snapshot = await harness.snapshot()
    await first.release(old)
    new = await second.claim_one()
    await harness.rollback(snapshot)

    adopted = await restore(harness, new.info, a_log(), grant=new.grant, by="leader-2")
    refused = await restore(harness, old.info, a_log(), grant=old.grant, by="leader-1")

    assert (adopted.code, refused.code) == (RestoreCode.OK, RestoreCode.REFUSED)
    assert [(await leader.beat()).num_held for leader in (first, second)] == [0, 1]


async def test_an_adopted_grant_is_in_no_claims_reply(harness: LaneHarness) -> None:
    await submit(harness, 1)
    snapshot = await harness.snapshot()
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.claim()
    await harness.rollback(snapshot)
    await leader.claim_again()
    await restore(harness, granted.info, a_log(), grant=granted.grant)

    assert (await leader.claim_again()).granted == ()


async def test_an_adopting_leader_gets_a_lease(harness: LaneHarness) -> None:
    _, granted = await ran_then_forgotten(harness)
    await harness.rollback(None)
    await restore(harness, granted.info, a_log(1), grant=granted.grant)

    view = (await harness.queue().view()).value

    assert [m.incarnation for m in view.leaders] == ["leader-1"]


async def test_a_router_completes_the_log_without_a_grant(harness: LaneHarness) -> None:
    _, granted = await ran_then_forgotten(harness)

    answer = await restore(harness, granted.info, a_log(1, 2), by="router-1")
    shorter = await restore(harness, granted.info, a_log(1), by="router-1")

    assert (answer.code, shorter.code) == (RestoreCode.OK, RestoreCode.OK)
    snapshot = await look(harness, granted.info)
    assert (snapshot.state, log_ids(snapshot.logs)) == (RequestState.WAITING, [1, 2])
    assert (await harness.queue().view()).value.handed_back_requests == 1


async def test_a_log_that_differs_stays(harness: LaneHarness) -> None:
    _, granted = await ran_then_forgotten(harness)
    await restore(harness, granted.info, a_log(1, 2))

    answer = await restore(harness, granted.info, a_log(1, 9, 3), grant=granted.grant)

    assert (answer.code, answer.sequence, answer.offset) == (RestoreCode.DIVERGED, 0, 1)
    snapshot = await look(harness, granted.info)
    assert (snapshot.state, log_ids(snapshot.logs)) == (RequestState.WAITING, [1, 2])


async def test_the_sequence_that_differs_is_named_and_none_is_changed(harness: LaneHarness) -> None:
    info = await submit(harness, num_sequences=2)
    await restore(harness, info, a_log(1), a_log(5, 6))

    answer = await restore(harness, info, a_log(1, 2), a_log(5, 7))

    assert answer == RestoreAnswer(RestoreCode.DIVERGED, 1, 1)
    assert log_ids((await look(harness, info)).logs, 0) == [1]


async def test_an_end_comes_back_with_its_offsets(harness: LaneHarness) -> None:
    leader, granted = await ran_then_forgotten(harness)
    snapshot = await harness.snapshot()
    adopted = await restore(harness, granted.info, a_log(1, 2, 3), grant=granted.grant)
    await harness.advance(harness.terms.hold_ms)
    end = (await leader.commit(granted, some(3, [4], STOP))).end
    assert end is not None
    await harness.rollback(snapshot)

    answer = await restore(harness, granted.info, a_log(1, 2, 3, 4), end=end)
    again = await restore(harness, granted.info, a_log(1, 2, 3, 4), end=end)

    assert adopted.code is RestoreCode.OK
    assert answer.code is RestoreCode.OK
    assert again.code is RestoreCode.ENDED
    assert again.end is not None
    assert again.end.same_as(end)
    after = await look(harness, granted.info)
    assert after.end is not None
    assert after.end.same_as(end)
    assert (log_ids(after.logs), after.logs[0].finish) == ([1, 2, 3, 4], STOP)


@pytest.mark.parametrize(("state", "finish"), [(RequestState.CANCELLED, None), (RequestState.DONE, STOP)])
async def test_a_log_longer_than_the_restored_end_is_not_read_beyond_it(
    harness: LaneHarness, state: RequestState, finish: SequenceFinish | None
) -> None:
    _, granted = await ran_then_forgotten(harness)
    await restore(harness, granted.info, a_log(1, 2, 3))
    told = SequenceLog(a_log(1, 2).ids, finish=finish)

    answer = await restore(harness, granted.info, told, end=RequestEnd(state, (2,), (finish,)))

    assert answer.code is RestoreCode.OK
    snapshot = await look(harness, granted.info)
    assert (snapshot.state, log_ids(snapshot.logs), snapshot.logs[0].finish) == (state, [1, 2], finish)


async def test_of_a_log_shorter_than_the_restored_end_what_there_is_is_read(harness: LaneHarness) -> None:
    _, granted = await ran_then_forgotten(harness)

    answer = await restore(harness, granted.info, a_log(1, 2), end=RequestEnd(RequestState.CANCELLED, (3,), (None,)))

    assert answer.code is RestoreCode.OK
    snapshot = await look(harness, granted.info)
    assert snapshot.end is not None
    assert (log_ids(snapshot.logs), snapshot.end.offsets) == ([1, 2], (3,))


async def test_an_end_that_is_there_wins(harness: LaneHarness) -> None:
    _, granted = await ran_then_forgotten(harness)
    first = RequestEnd(RequestState.CANCELLED, (1,), (None,))
    await restore(harness, granted.info, a_log(1), end=first)

    answers = [
        await restore(harness, granted.info, a_log(1, 2), end=RequestEnd(RequestState.DONE, (2,), (STOP,))),
        await restore(harness, granted.info, a_log(1, 2), grant=granted.grant),
    ]

    assert [a.code for a in answers] == [RestoreCode.ENDED] * 2
    assert all(a.end is not None and a.end.same_as(first) for a in answers)
    assert log_ids((await look(harness, granted.info)).logs) == [1]


async def test_an_end_is_told_to_the_owner(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    await leader.claim_one()

    await restore(harness, info, a_log(), end=RequestEnd(RequestState.CANCELLED, (0,), (None,)), by="router-1")

    assert [entry.id for entry in (await leader.beat()).inbox] == [info.id]


async def test_the_key_comes_back_with_the_record(harness: LaneHarness) -> None:
    info = await submit(harness, idempotency_key="k")
    identity = await harness.rollback(None)
    await restore(harness, info, a_log())

    answer = (await harness.queue().submit("router-1", 1, a_submission(identity, 2, idempotency_key="k"))).value

    assert getattr(answer, "info", None) == info


async def test_finishes_come_back_as_long_as_one_sequence_is_open(harness: LaneHarness) -> None:
    info = await submit(harness, num_sequences=2)
    await harness.rollback(None)
    first = SequenceLog(pack_ids([1]), b"", STOP)

    await restore(harness, info, first, a_log(2))
    partly = await look(harness, info)
    await restore(harness, info, first, SequenceLog(pack_ids([2, 3]), b"", STOP))
    whole = await look(harness, info)

    assert [log.finish for log in partly.logs] == [STOP, None]
    assert [log.finish for log in whole.logs] == [STOP, None]
    assert log_ids(whole.logs, 1) == [2, 3]


async def test_ids_past_a_recorded_finish_diverge(harness: LaneHarness) -> None:
    info = await submit(harness, num_sequences=2)
    await restore(harness, info, SequenceLog(pack_ids([1]), b"", STOP), a_log())

    answer = await restore(harness, info, a_log(1, 2), a_log())

    assert answer == RestoreAnswer(RestoreCode.DIVERGED, 0, 1)


# --- the same id twice -------------------------------------------------------------------------------------------


async def test_a_run_submitted_again_after_a_rollback_is_the_same_run(harness: LaneHarness) -> None:
    info = await submit(harness, idempotency_key="k", timeout_ms=60_000)
    await harness.rollback(None)
    await harness.advance(100)
    again = (await harness.queue().submit("router-2", 1, info.submission)).value
    assert getattr(again, "info").submitted_ms == info.submitted_ms + 100  # noqa: B009 — a union of answers

    answer = await restore(harness, info, a_log(1))

    assert answer.code is RestoreCode.OK
    assert (await look(harness, info)).info == info


async def test_an_older_run_does_not_touch_its_successor(harness: LaneHarness) -> None:
    info = await submit(harness, idempotency_key="k", retention_ms=1_000)
    old = replace(info, submitted_ms=info.submitted_ms - 1_000)
    untouched = await restore(harness, old, a_log(), by="router-1")
    young = replace(info, submitted_ms=info.submitted_ms)
    await HandLeader(harness.queue()).claim_one()

    answer = await restore(
        harness, replace(old, submitted_ms=old.submitted_ms - 1_000), a_log(7), end=RequestEnd(DONE, (1,), (STOP,))
    )

    assert untouched.code is RestoreCode.OK
    assert answer.code is RestoreCode.OTHER
    snapshot = await look(harness, young)
    assert (snapshot.state, log_ids(snapshot.logs)) == (RequestState.RUNNING, [])


async def test_a_later_run_replaces_an_ended_one(harness: LaneHarness) -> None:
    info = await submit(harness, idempotency_key="k", retention_ms=5_000)
    await harness.queue().cancel(info.id, TENANT)
    later = replace(info, submitted_ms=info.submitted_ms + 5_000)

    answer = await restore(harness, later, a_log(1))

    assert answer.code is RestoreCode.OK
    snapshot = await look(harness, info)
    assert (snapshot.info, snapshot.state, log_ids(snapshot.logs)) == (later, RequestState.WAITING, [1])


@pytest.mark.parametrize(
    "logs",
    [(), (a_log(1), a_log(1)), (SequenceLog(b"\x01"),), (SequenceLog(pack_ids([1]), b"12345678"),)],
    ids=["none", "too many", "half an id", "unwanted log-probabilities"],
)
async def test_a_malformed_restore_changes_nothing(harness: LaneHarness, logs: tuple[SequenceLog, ...]) -> None:
    info = await submit(harness)

    with pytest.raises(InvalidCallError):
        await restore(harness, info, *logs)

    assert log_ids((await look(harness, info)).logs) == []


GRACE = DisconnectAction.GRACE
DONE = RequestState.DONE
