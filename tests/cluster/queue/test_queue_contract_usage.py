"""Contract of every request queue: what tenants have used is counted once for each request, with its end."""

from typing import Any

from shardline_cluster.queue.answers import Ended, Gone, RestoreCode
from shardline_cluster.queue.calls import RestoreCall
from shardline_cluster.queue.records import Grant, RequestInfo, SequenceLog
from shardline_cluster.queue.tenant_usage import TenantUsage
from tests.cluster.queue.lane_calls import STOP, TENANT, HandLeader, a_log, look, some, submit
from tests.cluster.queue.lane_harness import LaneHarness


async def usage(harness: LaneHarness) -> dict[str, TenantUsage]:
    """By tenant."""
    return {used.tenant: used for used in (await harness.queue().usage()).value}


async def restore(harness: LaneHarness, ended: Ended, *, by: str = "leader-1") -> RestoreCode:
    """Tells the end of a request."""
    call = RestoreCall(incarnation=by, info=ended.info, logs=ended.logs, end=ended.end)
    return (await harness.queue().restore(call)).value.code


async def restore_open(
    harness: LaneHarness, info: RequestInfo, *logs: SequenceLog, grant: Grant | None = None
) -> RestoreCode:
    """Completes a request whose end the caller does not know."""
    return (await harness.queue().restore(RestoreCall(incarnation="r", info=info, logs=logs, grant=grant))).value.code


async def done(harness: LaneHarness, number: int = 1, **changes: Any) -> Ended:
    """A request that ended with three tokens."""
    info = await submit(harness, number, **changes)
    leader = HandLeader(harness.queue(), f"leader-{number}")
    await leader.commit(await leader.claim_one(), some(0, [1, 2, 3], STOP))
    return await the_end(harness, info)


async def the_end(harness: LaneHarness, info: RequestInfo) -> Ended:
    """As whoever restores it knows it."""
    shot = await look(harness, info)
    assert shot.end is not None, "it has ended"
    return Ended(shot.info, shot.end, shot.logs)


async def test_every_kind_of_end_is_counted_for_its_tenant(harness: LaneHarness) -> None:
    await done(harness, 1, tenant="a:b")
    cancelled = await submit(harness, 2, tenant="a:b")
    await harness.queue().cancel(cancelled.id, "a:b")
    await submit(harness, 3, timeout_ms=1)
    await harness.advance(1)
    await harness.queue().sweep(None)
    await submit(harness, 4)
    leader = HandLeader(harness.queue(), "leader-4")
    await leader.commit(await leader.claim_one(), some(0, [1]), error="it broke")

    found = await usage(harness)

    assert found == {
        "a:b": TenantUsage(tenant="a:b", requests_done=1, requests_cancelled=1, prompt_tokens=20, completion_tokens=3),
        TENANT: TenantUsage(
            tenant=TENANT, requests_expired=1, requests_failed=1, prompt_tokens=20, completion_tokens=1
        ),
    }


async def test_what_has_not_ended_is_not_counted(harness: LaneHarness) -> None:
    await submit(harness, 1)
    leader = HandLeader(harness.queue())
    await leader.commit(await leader.claim_one(), some(0, [1, 2]))
    await submit(harness, 2)

    assert await usage(harness) == {}


async def test_what_is_sent_again_is_not_counted_again(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()

    for _ in range(2):
        await leader.commit(granted, some(0, [1, 2, 3], STOP))
    for _ in range(2):
        await harness.queue().cancel(info.id, TENANT)

    assert (await usage(harness))[TENANT] == TenantUsage(
        tenant=TENANT, requests_done=1, prompt_tokens=10, completion_tokens=3
    )


async def test_all_outputs_are_counted_but_not_the_prompts_own_log(harness: LaneHarness) -> None:
    await submit(harness, num_sequences=3, has_prompt_log=True)
    leader = HandLeader(harness.queue())
    (granted,) = await leader.claim()

    await leader.commit(granted, *(some(0, [1, 2, 3, 4], STOP, sequence=s) for s in range(3)))

    assert (await usage(harness))[TENANT].completion_tokens == 8


async def test_an_end_that_was_rolled_back_and_restored_by_several_is_counted_once(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    before = await harness.snapshot()
    await leader.commit(granted, some(0, [1, 2, 3], STOP))
    ended = await the_end(harness, info)
    await harness.rollback(before)

    forgotten = await usage(harness)
    codes = [await restore(harness, ended, by=by) for by in ("leader-1", "router-1", "router-2")]

    assert forgotten == {}
    assert codes == [RestoreCode.OK, RestoreCode.ENDED, RestoreCode.ENDED]
    assert (await usage(harness))[TENANT] == TenantUsage(
        tenant=TENANT, requests_done=1, prompt_tokens=10, completion_tokens=3
    )


async def test_a_server_that_lost_everything_counts_what_it_is_given_back(harness: LaneHarness) -> None:
    known, _unknown = await done(harness, 1), await done(harness, 2)
    await harness.rollback(None)

    await restore(harness, known)

    assert (await usage(harness))[TENANT].requests_done == 1


async def test_an_end_that_cuts_the_log_counts_what_is_read_of_it(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1, 2, 3]))
    before = await harness.snapshot()
    await harness.queue().cancel(info.id, TENANT)
    ended = await the_end(harness, info)
    await harness.rollback(before)
    await leader.commit(granted, some(3, [4, 5]))

    await restore(harness, ended)

    assert (await usage(harness))[TENANT] == TenantUsage(
        tenant=TENANT, requests_cancelled=1, prompt_tokens=10, completion_tokens=3
    )


async def test_what_was_forgotten_on_demand_is_neither_taken_back_nor_counted_again(harness: LaneHarness) -> None:
    ended = await done(harness)
    await harness.advance(1)
    await harness.queue().forget(ended.info.id, TENANT)
    await harness.rollback(await harness.snapshot())

    codes = [await restore(harness, ended), await restore_open(harness, ended.info, a_log(1))]

    assert codes == [RestoreCode.FORGOTTEN, RestoreCode.FORGOTTEN]
    await harness.advance(harness.terms.hold_ms)
    assert (await harness.queue().look(ended.info.id, TENANT)).value == Gone()
    assert (await usage(harness))[TENANT].requests_done == 1


async def test_a_new_run_of_a_forgotten_request_is_restored_like_any_other(harness: LaneHarness) -> None:
    await done(harness, idempotency_key="k")
    await harness.advance(1)
    first = await submit(harness, idempotency_key="k")
    await harness.queue().forget(first.id, TENANT)
    before = await harness.snapshot()
    await harness.advance(1)
    again = await submit(harness, idempotency_key="k")
    await harness.rollback(before)

    code = await restore_open(harness, again, a_log(1))

    assert code is RestoreCode.OK
    assert (await look(harness, again)).logs == (a_log(1),)


async def test_an_end_that_comes_back_after_its_record_ran_out_is_not_counted_again(harness: LaneHarness) -> None:
    ended = await done(harness, store=False)
    await harness.advance(harness.terms.unstored_ms)
    await harness.rollback(await harness.snapshot())

    code = await restore(harness, ended)

    assert code is RestoreCode.OK
    assert (await look(harness, ended.info)).end == ended.end
    assert (await usage(harness))[TENANT].requests_done == 1
