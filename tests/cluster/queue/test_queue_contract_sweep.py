"""Contract of every request queue: what ends by itself, and what counts as a crash."""

import pytest

from shardline_cluster.queue.answers import Gone, GrantedRequest
from shardline_cluster.queue.calls import DeadMember, Member, MemberRole
from shardline_cluster.queue.records import DisconnectAction, RequestState
from tests.cluster.queue.lane_calls import TENANT, HandLeader, log_ids, look, some, submit
from tests.cluster.queue.lane_harness import LaneHarness


async def pass_time(harness: LaneHarness, ms: int, *beating: HandLeader) -> None:
    """Lets time pass while a router sweeps and some leaders live."""
    while ms > 0:
        step = min(ms, harness.terms.sweep_ms)
        await harness.advance(step)
        for leader in beating:
            await leader.beat()
        await harness.queue().sweep("router-1")
        ms -= step


async def crash_once(harness: LaneHarness, name: str, *, tokens: int = 0) -> None:
    """A leader claims, perhaps commits, and is never heard of again."""
    leader = HandLeader(harness.queue(), name)
    granted = await leader.claim_one()
    if tokens:
        start = granted.logs[0].num_tokens
        await leader.commit(granted, some(start, range(tokens)))
    await pass_time(harness, harness.terms.lease_ms)


async def test_a_silent_leaders_requests_wait_again(harness: LaneHarness) -> None:
    info = await submit(harness)
    await pass_time(harness, 1_000)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1]))

    await pass_time(harness, harness.terms.lease_ms - 1)
    assert (await look(harness, info)).state is RequestState.RUNNING

    await pass_time(harness, 1)
    snapshot = await look(harness, info)
    assert (snapshot.state, log_ids(snapshot.logs), snapshot.attempts) == (RequestState.WAITING, [1], 0)


async def test_a_claim_sweeps_too(harness: LaneHarness) -> None:
    await submit(harness)
    await HandLeader(harness.queue(), "leader-1").claim_one()
    other = HandLeader(harness.queue(), "leader-2")

    granted: list[GrantedRequest] = []
    for _ in range(8):
        await harness.advance(1_000)
        granted += await other.claim()

    assert [(g.grant.epoch, g.attempts) for g in granted] == [(2, 1)]


async def test_a_crash_with_a_token_is_no_attempt(harness: LaneHarness) -> None:
    info = await submit(harness)
    await pass_time(harness, 1_000)

    for k in range(5):
        await crash_once(harness, f"leader-{k}", tokens=1)

    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.attempts, len(log_ids(snapshot.logs))) == (RequestState.WAITING, 0, 5)


async def test_the_third_counted_crash_fails_the_request(harness: LaneHarness) -> None:
    info = await submit(harness)
    await pass_time(harness, 1_000)

    attempts = []
    for k in range(harness.terms.max_crashes):
        await crash_once(harness, f"leader-{k}")
        attempts.append((await look(harness, info)).attempts)

    snapshot = await look(harness, info)
    assert attempts == [1, 2, 3]
    assert snapshot.state is RequestState.FAILED
    assert snapshot.end is not None
    assert "3 " in snapshot.end.error


async def test_a_token_does_not_wash_off_earlier_crashes_of_others(harness: LaneHarness) -> None:
    info = await submit(harness)
    await pass_time(harness, 1_000)
    await crash_once(harness, "leader-1")
    await crash_once(harness, "leader-2", tokens=1)

    assert (await look(harness, info)).attempts == 1


async def test_sixteen_fruitless_claims_fail_the_request(harness: LaneHarness) -> None:
    """Each is lost to a hold, so that no crash counts; only the number of claims gives the request away."""
    info = await submit(harness, max_queue_ms=10**9)
    await pass_time(harness, 1_000)

    for k in range(harness.terms.max_fruitless_claims):
        assert (await look(harness, info)).state is RequestState.WAITING
        await HandLeader(harness.queue(), f"leader-{k}").claim_one()
        await harness.rollback(await harness.snapshot())
        await harness.queue().view()
        await pass_time(harness, harness.terms.hold_ms + harness.terms.lease_ms)

    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.attempts) == (RequestState.FAILED, 0)


async def test_hand_offs_are_never_fruitless(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())

    for _ in range(2 * harness.terms.max_fruitless_claims):
        await leader.release(await leader.claim_one())
    await leader.claim_one()
    await pass_time(harness, 1_000)
    await harness.queue().sweep(None, [DeadMember(leader.incarnation, had_drained=False)])

    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.attempts) == (RequestState.WAITING, 1)


@pytest.mark.parametrize(("had_drained", "attempts"), [(True, 0), (False, 1)])
async def test_a_leader_seen_to_exit_is_reclaimed_at_once(
    harness: LaneHarness, had_drained: bool, attempts: int
) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    await leader.claim_one()

    await harness.queue().sweep(None, [DeadMember(leader.incarnation, had_drained)])

    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.attempts) == (RequestState.WAITING, attempts)
    assert (await harness.queue().view()).value.leaders == ()


async def test_an_outage_gives_leases_one_more_term(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await harness.advance(10 * harness.terms.lease_ms)

    await harness.queue().sweep("router-1")
    assert (await look(harness, info)).state is RequestState.RUNNING

    await pass_time(harness, harness.terms.lease_ms - 1)
    assert (await leader.commit(granted, some(0, [1]))).lengths == (1,)


async def test_an_outage_gives_graces_one_more_term(harness: LaneHarness) -> None:
    info = await submit(harness, grace_ms=3_000)
    await pass_time(harness, 1_000)
    await harness.queue().detach("router-1", 1, info.id)
    await harness.advance(60_000)

    await harness.queue().sweep("router-1")
    assert (await look(harness, info)).state is RequestState.WAITING
    await pass_time(harness, 2_999)
    assert (await look(harness, info)).state is RequestState.WAITING

    await pass_time(harness, 1)
    assert (await look(harness, info)).state is RequestState.CANCELLED


@pytest.mark.parametrize("running", [False, True])
async def test_a_deadline_ends_a_request_waiting_or_running(harness: LaneHarness, running: bool) -> None:
    info = await submit(harness, timeout_ms=2_500)
    leader = HandLeader(harness.queue())
    if running:
        await leader.claim_one()

    await pass_time(harness, 2_499, leader)
    assert (await look(harness, info)).end is None

    await pass_time(harness, 1, leader)
    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.end and snapshot.end.offsets) == (RequestState.EXPIRED, (0,))


async def test_a_deadline_ends_what_was_handed_back(harness: LaneHarness) -> None:
    info = await submit(harness, timeout_ms=2_000)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1]))
    await leader.release(granted)

    await pass_time(harness, 2_000)

    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.end and snapshot.end.offsets) == (RequestState.EXPIRED, (1,))


async def test_too_long_in_the_queue_is_expired(harness: LaneHarness) -> None:
    waits = await submit(harness, 1, max_queue_ms=3_000)
    leader = HandLeader(harness.queue())
    tried = await submit(harness, 2, max_queue_ms=3_000, priority=-1)
    await leader.release(await leader.claim_one())

    await pass_time(harness, 3_000, leader)

    assert (await look(harness, waits)).state is RequestState.EXPIRED
    assert (await look(harness, tried)).state is RequestState.WAITING


@pytest.mark.parametrize("action", [DisconnectAction.GRACE, DisconnectAction.CANCEL])
async def test_a_dead_routers_streams_get_two_leases(harness: LaneHarness, action: DisconnectAction) -> None:
    info = await submit(harness, router="router-dead", on_disconnect=action, grace_ms=0)
    await harness.queue().register(Member(incarnation="router-dead", role=MemberRole.ROUTER))
    await pass_time(harness, harness.terms.lease_ms)

    await pass_time(harness, 2 * harness.terms.lease_ms - 1)
    assert (await look(harness, info)).state is RequestState.WAITING

    await pass_time(harness, 1)
    assert (await look(harness, info)).state is RequestState.CANCELLED


@pytest.mark.parametrize("action", [DisconnectAction.GRACE, DisconnectAction.CANCEL])
@pytest.mark.parametrize("attaches", ["before", "after"])
async def test_a_dead_routers_grace_outlives_another_listener(
    harness: LaneHarness, action: DisconnectAction, attaches: str
) -> None:
    """Nobody knows whether the other router's client was the dead one's."""
    info = await submit(harness, router="router-dead", on_disconnect=action, grace_ms=0)
    if attaches == "before":
        await harness.queue().attach("router-1", 1, info.id, TENANT)
    await pass_time(harness, harness.terms.lease_ms)
    await harness.queue().attach("router-1", 2, info.id, TENANT)

    await harness.queue().detach("router-1", 2, info.id)
    await pass_time(harness, 2 * harness.terms.lease_ms - 1)
    assert (await look(harness, info)).state is RequestState.WAITING

    await pass_time(harness, 1)
    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_a_grace_over_which_somebody_listens_ends_in_nothing(harness: LaneHarness) -> None:
    info = await submit(harness, router="router-dead", on_disconnect=DisconnectAction.CANCEL, grace_ms=0)
    await pass_time(harness, harness.terms.lease_ms)
    await harness.queue().attach("router-1", 1, info.id, TENANT)

    await pass_time(harness, 3 * harness.terms.lease_ms)
    assert (await look(harness, info)).state is RequestState.WAITING

    await harness.queue().detach("router-1", 1, info.id)
    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_a_grace_begins_anew_with_each_leave(harness: LaneHarness) -> None:
    info = await submit(harness, on_disconnect=DisconnectAction.GRACE, grace_ms=3_000)
    await pass_time(harness, 1_000)
    await harness.queue().detach("router-1", 1, info.id)
    await pass_time(harness, 2_000)
    await harness.queue().attach("router-1", 2, info.id, TENANT)

    await harness.queue().detach("router-1", 2, info.id)
    await pass_time(harness, 2_999)
    assert (await look(harness, info)).state is RequestState.WAITING

    await pass_time(harness, 1)
    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_a_dead_routers_request_goes_on_where_it_was_to(harness: LaneHarness) -> None:
    info = await submit(harness, router="router-dead", on_disconnect=DisconnectAction.CONTINUE)

    await pass_time(harness, 6 * harness.terms.lease_ms)

    assert (await look(harness, info)).state is RequestState.WAITING


async def test_a_listener_of_a_router_without_a_lease_does_not_stay_for_ever(harness: LaneHarness) -> None:
    info = await submit(harness, router="router-1", grace_ms=0, on_disconnect=DisconnectAction.GRACE)
    await harness.queue().detach("router-1", 1, info.id)
    await harness.queue().attach("router-never-registered", 1, info.id, TENANT)

    await pass_time(harness, 3 * harness.terms.lease_ms + 1_000)

    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_a_living_router_keeps_its_streams(harness: LaneHarness) -> None:
    info = await submit(harness, router="router-1", grace_ms=0)

    await pass_time(harness, 5 * harness.terms.lease_ms)

    assert (await look(harness, info)).state is RequestState.WAITING


async def test_an_ended_request_runs_out_after_its_retention(harness: LaneHarness) -> None:
    info = await submit(harness, timeout_ms=1_000, retention_ms=4_000)
    await pass_time(harness, 1_000)

    await harness.advance(3_999)
    assert (await look(harness, info)).state is RequestState.EXPIRED

    await harness.advance(1)
    assert (await harness.queue().look(info.id, TENANT)).value == Gone()
