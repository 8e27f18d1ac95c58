"""Contract of every request queue: claiming, its order, its repetition, releasing."""

import pytest

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import InboxKind
from shardline_cluster.queue.calls import ClaimCall, LaneBounds
from shardline_cluster.queue.records import RequestState
from tests.cluster.queue.lane_calls import STOP, HandLeader, log_ids, look, some, submit
from tests.cluster.queue.lane_harness import LaneHarness


async def test_a_claim_grants_the_request_with_its_log(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())

    granted = await leader.claim_one()

    assert granted.info == info
    assert granted.grant.epoch == 1
    assert leader.last_claim is not None
    assert granted.grant.nonce == leader.last_claim.nonce
    assert granted.attempts == 0
    snapshot = await look(harness, info)
    assert (snapshot.state, snapshot.epoch, snapshot.position) == (RequestState.RUNNING, 1, None)


async def test_no_request_is_granted_twice(harness: LaneHarness) -> None:
    await submit(harness)
    await HandLeader(harness.queue(), "leader-1").claim_one()

    assert await HandLeader(harness.queue(), "leader-2").claim() == ()


async def test_a_nonce_may_hold_any_bytes(harness: LaneHarness) -> None:
    info = await submit(harness)
    nonce = b"\x00\xff\r\n\x80\x00\x01\xfe"
    call = ClaimCall(incarnation="l", number=1, nonce=nonce, free_slots=1, free_tokens=99, inbox_seen=0)

    first = (await harness.queue().claim(call)).value
    again = (await harness.queue().claim(call)).value

    assert first.granted[0].grant.nonce == nonce
    assert again.granted == first.granted
    assert first.granted[0].info == info


async def test_a_nonce_of_another_length_is_refused(harness: LaneHarness) -> None:
    await submit(harness)
    call = ClaimCall(incarnation="l", number=1, nonce=b"short", free_slots=1, free_tokens=99, inbox_seen=0)

    with pytest.raises(InvalidCallError, match="8 bytes"):
        await harness.queue().claim(call)

    assert (await harness.queue().view()).value.waiting_requests == 1


async def test_slots_are_counted_in_sequences(harness: LaneHarness) -> None:
    await submit(harness, 1, num_sequences=2)
    await submit(harness, 2, num_sequences=3)
    leader = HandLeader(harness.queue())

    first = await leader.claim(free_slots=4)
    second = await leader.claim(free_slots=3)

    assert [g.info.submission.num_sequences for g in first] == [2]
    assert [g.info.submission.num_sequences for g in second] == [3]


async def test_a_finished_sequence_needs_no_slot(harness: LaneHarness) -> None:
    await submit(harness, num_sequences=2)
    leader = HandLeader(harness.queue())
    granted = (await leader.claim(free_slots=2))[0]
    await leader.commit(granted, some(0, [5], STOP))
    await leader.release(granted)

    again = await leader.claim_one()

    assert again.logs[0].finish == STOP
    assert again.logs[1].finish is None


async def test_a_request_that_needs_more_tokens_than_are_free_waits(harness: LaneHarness) -> None:
    await submit(harness, prompt_tokens=100)
    leader = HandLeader(harness.queue())

    assert await leader.claim(free_tokens=100) == ()
    assert len(await leader.claim(free_tokens=101)) == 1


async def test_sequences_that_together_fit_no_replica_still_go_on(harness: LaneHarness) -> None:
    await submit(harness, prompt_tokens=100, num_sequences=3, max_tokens=60)
    leader = HandLeader(harness.queue())
    (granted,) = await leader.claim()
    await leader.commit(
        granted, some(0, range(50)), some(0, range(40), sequence=1), some(0, range(55), STOP, sequence=2)
    )
    await leader.release(granted)

    assert await leader.claim(free_tokens=150) == ()
    assert len(await leader.claim(free_tokens=151)) == 1


async def test_a_log_of_the_prompt_that_is_longer_than_any_output_takes_no_more_room(harness: LaneHarness) -> None:
    await submit(harness, prompt_tokens=100, num_sequences=2, max_tokens=10)
    leader = HandLeader(harness.queue())
    (granted,) = await leader.claim()
    await leader.commit(granted, some(0, range(1)), some(0, range(100), sequence=1))
    await leader.release(granted)

    assert await leader.claim(free_tokens=110) == ()
    assert len(await leader.claim(free_tokens=111)) == 1


async def test_priority_then_arrival_orders_a_tenants_queue(harness: LaneHarness) -> None:
    for number, priority in enumerate([5, 0, -100, 0, 100]):
        await submit(harness, number, priority=priority)

    granted = await HandLeader(harness.queue()).claim()

    assert [g.info.submission.priority for g in granted] == [-100, 0, 0, 5, 100]
    assert granted[1].info.id < granted[2].info.id


async def test_what_was_handed_back_comes_first_with_its_tokens(harness: LaneHarness) -> None:
    first = await submit(harness, 1)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [7, 8]))
    await submit(harness, 2, priority=-100)
    await leader.release(granted)

    snapshot = await look(harness, first)
    again = await leader.claim_one()

    assert (snapshot.state, snapshot.position) == (RequestState.WAITING, 0)
    assert again.info == first
    assert again.grant.epoch == 2
    assert log_ids(again.logs) == [7, 8]
    assert again.attempts == 0


async def test_a_release_under_another_grant_does_nothing(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    old = await leader.claim_one()
    await leader.release(old)
    await leader.claim_one()

    await leader.release(old)
    await HandLeader(harness.queue(), "stranger").release(old)

    assert (await look(harness, info)).state is RequestState.RUNNING


async def test_the_same_claim_brings_the_same_requests_and_mail(harness: LaneHarness) -> None:
    await submit(harness, 1)
    leader = HandLeader(harness.queue())
    await harness.queue().drain(leader.incarnation)
    granted = await leader.claim()
    await submit(harness, 2)

    again = await leader.claim_again()

    assert again.granted == granted
    assert [entry.kind for entry in again.inbox] == [InboxKind.DRAIN]
    assert not again.stale


async def test_a_repeated_claim_leaves_out_what_was_released_since(harness: LaneHarness) -> None:
    await submit(harness, 1)
    await submit(harness, 2)
    leader = HandLeader(harness.queue())
    kept, released = await leader.claim()
    await leader.release(released)

    again = await leader.claim_again()

    assert [g.info.id for g in again.granted] == [kept.info.id]


async def test_a_lower_claim_number_does_nothing(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    await leader.claim()
    old_call = leader.last_claim
    assert old_call is not None
    await leader.claim()
    await submit(harness)

    answer = (await harness.queue().claim(old_call)).value

    assert (answer.stale, answer.granted, answer.inbox) == (True, (), ())
    assert (await harness.queue().view()).value.waiting_requests == 1


async def test_a_stale_claim_renews_no_lease(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    await leader.claim()
    old_call = leader.last_claim
    assert old_call is not None
    await leader.claim()
    lease_ends_ms = (await harness.queue().view()).value.leaders[0].lease_ends_ms
    await harness.advance(500)

    await harness.queue().claim(old_call)

    assert (await harness.queue().view()).value.leaders[0].lease_ends_ms == lease_ends_ms


async def test_mail_comes_again_until_it_is_acknowledged(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    await harness.queue().drain(leader.incarnation)
    await harness.queue().drain(leader.incarnation)

    first, again = (await leader.beat()).inbox, (await leader.beat()).inbox
    leader.inbox_seen = first[-1].number
    seen = (await leader.beat()).inbox

    assert [entry.kind for entry in first] == [InboxKind.DRAIN]
    assert again == first
    assert seen == ()


async def test_three_tenants_share_the_slots_of_one_claim(harness: LaneHarness) -> None:
    for number in range(30):
        await submit(harness, number, tenant="loud")
    for number in (30, 31):
        await submit(harness, number, tenant="quiet")
        await submit(harness, number + 10, tenant="other")

    granted = await HandLeader(harness.queue()).claim(free_slots=6)

    tenants = [g.info.submission.tenant for g in granted]
    assert sorted(tenants) == ["loud"] * 2 + ["other"] * 2 + ["quiet"] * 2


async def test_weights_divide_the_lane(harness: LaneHarness) -> None:
    await harness.queue().configure(LaneBounds(tenant_weights=(("heavy", 3.0),)))
    for number in range(20):
        await submit(harness, number, tenant="heavy")
        await submit(harness, 100 + number, tenant="light")

    granted = await HandLeader(harness.queue()).claim(free_slots=12)

    tenants = [g.info.submission.tenant for g in granted]
    assert tenants.count("heavy") == 9
    assert tenants.count("light") == 3


async def test_a_tenant_pays_by_tokens_not_by_requests(harness: LaneHarness) -> None:
    for number in range(10):
        await submit(harness, number, tenant="long", prompt_tokens=190, max_tokens=10)
        await submit(harness, 100 + number, tenant="short", prompt_tokens=40, max_tokens=10)

    granted = await HandLeader(harness.queue()).claim(free_slots=10)

    tenants = [g.info.submission.tenant for g in granted]
    assert tenants.count("short") == 8
    assert tenants.count("long") == 2


async def test_what_was_not_generated_is_given_back_to_the_tenant(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    await submit(harness, 1, tenant="a", max_tokens=1_000)
    await submit(harness, 2, tenant="b", max_tokens=100)
    first, second = await leader.claim()
    assert [first.info.submission.tenant, second.info.submission.tenant] == ["a", "b"]
    await leader.commit(first, some(0, [1], STOP))
    await submit(harness, 3, tenant="a")
    await submit(harness, 4, tenant="b")

    granted = await leader.claim_one()

    assert granted.info.submission.tenant == "a"


async def test_a_tenant_that_does_not_fit_lets_others_pass(harness: LaneHarness) -> None:
    await submit(harness, 1, tenant="a", prompt_tokens=500)
    await submit(harness, 2, tenant="a")
    await submit(harness, 3, tenant="b")

    granted = await HandLeader(harness.queue()).claim(free_tokens=100)

    assert [g.info.submission.tenant for g in granted] == ["b"]


async def test_the_next_event_is_not_later_than_a_deadline(harness: LaneHarness) -> None:
    await submit(harness, timeout_ms=300)
    leader = HandLeader(harness.queue())
    await leader.claim_one()

    answer = await leader.claim_again()

    assert 0 < answer.next_event_ms <= 300


async def test_a_big_claim_is_cut_and_goes_on_with_the_next(harness: LaneHarness) -> None:
    for number in range(3):
        await submit(harness, number, payload=bytes(2_500_000))
    leader = HandLeader(harness.queue())

    sizes = [len(await leader.claim()) for _ in range(4)]

    assert sizes == [1, 1, 1, 0]


async def test_a_lane_without_work_forgets_what_its_tenants_had(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    await submit(harness, 1, tenant="a", prompt_tokens=500)
    await leader.commit(await leader.claim_one(), some(0, [1], STOP))
    await harness.queue().sweep(None)
    await submit(harness, 2, tenant="b")
    await submit(harness, 3, tenant="a")
    await submit(harness, 4, tenant="b")

    granted = await leader.claim(free_slots=2)

    assert [g.info.submission.tenant for g in granted] == ["a", "b"]


async def test_more_tenants_than_a_claim_looks_at_are_all_served(harness: LaneHarness) -> None:
    for number in range(300):
        await submit(harness, number, tenant=f"t{number:03}", prompt_tokens=100 if number < 256 else 10)
    leader = HandLeader(harness.queue())

    granted = await leader.claim(free_slots=300, free_tokens=99)

    assert [g.info.submission.prompt_tokens for g in granted] == [10] * 9


async def test_a_tenant_that_returns_after_idling_has_no_monopoly(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    for number in range(40):
        await submit(harness, number, tenant="steady")
    for granted in await leader.claim(free_slots=20):
        await leader.commit(granted, some(0, range(10), STOP))
    for number in range(100, 140):
        await submit(harness, number, tenant="returned")

    granted_now = await leader.claim(free_slots=10)

    tenants = [g.info.submission.tenant for g in granted_now]
    assert len(tenants) == 10
    assert tenants.count("returned") in (5, 6)  # the steady one is in the midst of its turn
