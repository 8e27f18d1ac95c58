"""Streams whose id another run has by now: forgotten on demand and submitted again, or twice after a rollback."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import DataLossError
from tests.cluster.router.scripted_leader import STOP, ScriptedLeader
from tests.cluster.router.stepped_router import ID, StartRouter, SteppedRouter, SteppedServer, submission


async def test_a_router_that_slept_learns_that_its_run_ended_long_ago(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, router.drawn, idempotency_key="k")
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
    assert await other.log(ID) == (7,)


async def test_a_twin_submitted_again_after_a_rollback_and_the_restored_first_are_one_request(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, router.drawn, idempotency_key="k")
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
    keyed = submission(ID, router.drawn, idempotency_key="k")
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
