"""What a router remembers of requests that it saw lately, and gives back to a server that forgot them."""

from dataclasses import replace

import pytest

from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.records import DisconnectAction
from shardline_cluster.router.streams.lane_calls import RestoreRequest
from tests.cluster.router.scripted_leader import STOP, ScriptedLeader
from tests.cluster.router.stepped_router import ID, SteppedRouter, SteppedServer, submission


@pytest.mark.parametrize("what", ["submit", "stream that was left", "cancel", "end"])
async def test_what_a_router_saw_lately_is_restored_also_when_its_client_is_gone(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader, what: str
) -> None:
    keep = submission(ID, router.drawn, on_disconnect=DisconnectAction.CONTINUE)
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
    await router.submit(submission(ID, router.drawn, background=True))
    await router.settle()

    world.clock_ms += 20 * router.lane.terms.lately_ms  # nobody answers meanwhile
    world.server.rollback(None)
    await router.sweep()
    await router.settle()

    assert (await router.look(ID)).info.id == ID


async def test_a_memory_ends_when_the_same_server_has_answered_for_long_enough(
    world: SteppedServer, router: SteppedRouter
) -> None:
    await router.submit(submission(ID, router.drawn, background=True))
    for _ in range(2 + router.lane.terms.lately_ms // 1000):
        world.clock_ms += 1000
        await router.sweep()

    assert len(router.lane.recent) == 0


async def test_a_duplicate_of_what_was_read_lately_leaves_the_memory_whole(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, router.drawn, idempotency_key="k")
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
    await router.submit(submission(ID, router.drawn, background=True))
    await router.cancel(ID)
    await router.queue.forget(ID, "default")

    router.lane.forgotten(ID)
    world.server.rollback(None)
    await router.sweep()

    assert router.of_kind(RestoreRequest) == []


async def test_another_run_of_what_was_read_lately_begins_with_nothing(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    keyed = submission(ID, router.drawn, idempotency_key="k")
    first = await router.submit_and_open(keyed)
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await router.settle()
    router.leave(first)
    world.clock_ms += 2 * keyed.retention_ms

    second = await router.submit_and_open(keyed)
    at_once = router.lane.stream_of(second).take(second)

    assert (at_once.sequences, at_once.end) == ((), None)
