"""Contract of every request queue: submitting, bounds, idempotency, and what is read of a waiting request."""

from dataclasses import replace

import pytest

from shardline_cluster.queue.answers import Accepted, Duplicate, Gone, KeyConflict, LaneFull, TooLarge
from shardline_cluster.queue.calls import LaneBounds
from shardline_cluster.queue.records import RequestState
from tests.cluster.queue.lane_calls import STOP, HandLeader, a_submission, log_ids, look, some, submit
from tests.cluster.queue.lane_harness import LaneHarness


async def test_an_accepted_request_waits_with_empty_logs(harness: LaneHarness) -> None:
    info = await submit(harness, num_sequences=3, timeout_ms=5_000)

    snapshot = await look(harness, info)

    assert snapshot.state is RequestState.WAITING
    assert (snapshot.epoch, snapshot.attempts, snapshot.position, snapshot.end) == (0, 0, 0, None)
    assert [log.ids for log in snapshot.logs] == [b"", b"", b""]
    assert snapshot.info == info
    assert info.submitted_ms == await harness.now_ms()
    assert info.deadline_ms == info.submitted_ms + 5_000


async def test_every_field_of_a_submission_survives(harness: LaneHarness) -> None:
    submission = a_submission(
        await harness.identity(),
        payload=bytes(range(256)),
        priority=-100,
        num_logprobs=0,
        idempotency_key="ключ:with spaces",
        background=True,
        store=False,
        max_queue_ms=7,
    )

    await harness.queue().submit("router-1", 1, submission)

    snapshot = (await harness.queue().look(submission.id, submission.tenant)).value
    assert not isinstance(snapshot, Gone)
    assert getattr(snapshot, "info").submission == submission  # noqa: B009 — a union of answers


async def test_positions_count_what_waits_before(harness: LaneHarness) -> None:
    identity = await harness.identity()

    answers = [(await harness.queue().submit("router-1", 1, a_submission(identity, k))).value for k in range(3)]

    assert [getattr(answer, "position", None) for answer in answers] == [0, 1, 2]


async def test_a_resent_submit_is_a_duplicate_of_itself(harness: LaneHarness) -> None:
    info = await submit(harness)
    await harness.advance(100)

    answer = (await harness.queue().submit("router-1", 1, info.submission)).value

    assert answer == Duplicate(info)
    assert (await harness.queue().view()).value.waiting_requests == 1


async def test_the_same_key_and_body_is_the_first_request(harness: LaneHarness) -> None:
    info = await submit(harness, 1, idempotency_key="k")
    again = a_submission(await harness.identity(), 2, idempotency_key="k")

    answer = (await harness.queue().submit("router-2", 1, again)).value

    assert answer == Duplicate(info)


async def test_the_same_key_with_another_body_is_a_conflict(harness: LaneHarness) -> None:
    info = await submit(harness, 1, idempotency_key="k")
    other = a_submission(await harness.identity(), 2, idempotency_key="k", body_digest="ff")

    answer = (await harness.queue().submit("router-1", 1, other)).value

    assert answer == KeyConflict(info.id)


async def test_keys_of_two_tenants_are_two_keys(harness: LaneHarness) -> None:
    await submit(harness, 1, idempotency_key="k", tenant="one")
    other = a_submission(await harness.identity(), 2, idempotency_key="k", tenant="two", body_digest="ff")

    answer = (await harness.queue().submit("router-1", 1, other)).value

    assert isinstance(answer, Accepted)


@pytest.mark.parametrize(
    ("bounds", "bound"),
    [
        (LaneBounds(max_waiting_requests=2), "max_waiting_requests"),
        (LaneBounds(max_waiting_tokens=2 * 20 + 19), "max_waiting_tokens"),
        (LaneBounds(max_waiting_bytes=3 * 7 - 1), "max_waiting_bytes"),
    ],
)
async def test_a_third_request_does_not_fit_a_bound_for_two(
    harness: LaneHarness, bounds: LaneBounds, bound: str
) -> None:
    await harness.queue().configure(bounds)
    await submit(harness, 1)
    await submit(harness, 2)

    answer = (await harness.queue().submit("router-1", 1, a_submission(await harness.identity(), 3))).value

    assert isinstance(answer, LaneFull)
    assert (answer.bound, answer.value) == (bound, getattr(bounds, bound))
    assert answer.retry_after_ms > 0


async def test_a_bound_counts_only_what_waits_and_refuses_no_duplicate(harness: LaneHarness) -> None:
    await harness.queue().configure(LaneBounds(max_waiting_requests=1))
    first = await submit(harness, 1)
    full = (await harness.queue().submit("router-1", 1, a_submission(await harness.identity(), 2))).value
    assert isinstance(full, LaneFull)

    again = (await harness.queue().submit("router-1", 1, first.submission)).value
    await HandLeader(harness.queue()).claim_one()
    after_claim = (await harness.queue().submit("router-1", 1, a_submission(await harness.identity(), 2))).value

    assert again == Duplicate(first)
    assert isinstance(after_claim, Accepted)


async def test_the_wait_of_a_full_lane_is_measured(harness: LaneHarness) -> None:
    await harness.queue().configure(LaneBounds(max_waiting_requests=4))
    leader = HandLeader(harness.queue())

    async def retry_after_ms(first: int, pace_ms: int) -> int:
        for k in range(first, first + 4):
            await submit(harness, k)
        for k in range(first + 4, first + 34):
            await harness.advance(pace_ms)
            await leader.claim_one()
            await submit(harness, k)
        full = (await harness.queue().submit("r", 1, a_submission(await harness.identity(), 999))).value
        assert isinstance(full, LaneFull)
        await leader.claim()
        return full.retry_after_ms

    quick_ms, slow_ms = await retry_after_ms(0, 10), await retry_after_ms(100, 400)

    assert quick_ms <= 100 < 200 <= slow_ms <= 800


async def test_what_no_shape_can_hold_is_too_large(harness: LaneHarness) -> None:
    await harness.queue().configure(LaneBounds(largest_request_tokens=20))

    fits = (await harness.queue().submit("r", 1, a_submission(await harness.identity(), 1))).value
    large = a_submission(await harness.identity(), 2, prompt_tokens=11)
    answer = (await harness.queue().submit("r", 1, large)).value

    assert isinstance(fits, Accepted)
    assert answer == TooLarge(21, 20)


async def test_an_ended_duplicate_begins_its_retention_anew(harness: LaneHarness) -> None:
    info = await submit(harness, retention_ms=1_000)
    await harness.queue().cancel(info.id, info.submission.tenant)
    await harness.advance(900)

    answer = (await harness.queue().submit("router-1", 1, info.submission)).value
    await harness.advance(900)

    assert answer == Duplicate(info)
    assert (await look(harness, info)).state is RequestState.CANCELLED
    await harness.advance(100)
    assert (await harness.queue().look(info.id, info.submission.tenant)).value == Gone()


async def test_a_key_can_be_used_again_after_the_retention(harness: LaneHarness) -> None:
    info = await submit(harness, idempotency_key="k", retention_ms=1_000)
    await harness.queue().cancel(info.id, info.submission.tenant)
    await harness.advance(1_000)
    other = replace(info.submission, id=f"lane-{7:032x}", body_digest="ff")

    answer = (await harness.queue().submit("router-1", 1, other)).value

    assert isinstance(answer, Accepted)


async def test_an_unstored_request_goes_after_its_short_term(harness: LaneHarness) -> None:
    info = await submit(harness, store=False)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1], STOP))

    await harness.advance(harness.terms.unstored_ms - 1)
    assert log_ids((await look(harness, info)).logs) == [1]

    await harness.advance(1)
    assert (await harness.queue().look(info.id, info.submission.tenant)).value == Gone()


async def test_nothing_runs_out_before_its_end(harness: LaneHarness) -> None:
    info = await submit(harness, retention_ms=10, max_queue_ms=10**9)

    await harness.advance(1_000_000)

    assert (await look(harness, info)).state is RequestState.WAITING
