"""Streams that are opened with a cursor."""

import pytest

from shardline_cluster.errors import DataLossError
from tests.cluster.router.scripted_leader import STOP, ScriptedLeader
from tests.cluster.router.stepped_router import ID, StartRouter, SteppedRouter, SteppedServer, cursor_over, submission


async def test_a_cursor_goes_on_behind_what_it_covers(router: SteppedRouter, leader: ScriptedLeader) -> None:
    await router.submit(submission(ID, router.drawn, background=True))
    await leader.claim()
    await leader.commit(ID, [1, 2, 3])

    reader = router.open(ID, cursor_over(1, 2))
    await router.settle()

    assert router.take(reader) == (3,)


async def test_a_cursor_over_other_ids_is_data_loss_and_names_the_offset(
    router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, router.drawn, background=True))
    await leader.claim()
    await leader.commit(ID, [1, 2, 3])

    reader = router.open(ID, cursor_over(1, 9))
    await router.settle()

    with pytest.raises(DataLossError, match="before or at token 2"):
        router.take(reader)


@pytest.mark.parametrize(("seen", "is_lost"), [((1, 2), False), ((1, 9), True)])
async def test_a_cursor_past_the_log_waits_and_is_checked_when_the_log_gets_there(
    router: SteppedRouter, leader: ScriptedLeader, seen: tuple[int, ...], is_lost: bool
) -> None:
    await router.submit(submission(ID, router.drawn, background=True))
    await leader.claim()
    await leader.commit(ID, [1])
    reader = router.open(ID, cursor_over(*seen))
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
    await router.submit(submission(ID, router.drawn, background=True))
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)

    reader = router.open(ID, cursor_over(1, 2))
    await router.settle()

    with pytest.raises(DataLossError, match="the log ended at token 1"):
        router.take(reader)


async def test_a_cursor_past_the_log_waits_in_a_hold_and_is_lost_after_it_where_nobody_can_restore(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, router.drawn, background=True))
    await leader.claim()
    await leader.commit(ID, [1])
    await router.cancel(ID)
    world.server.rollback(world.server.snapshot())
    fresh = await start("router-2")  # the first one and the leader are dead
    reader = fresh.open(ID, cursor_over(1, 2))

    await fresh.settle()

    with pytest.raises(DataLossError, match="2 tokens were delivered, but the log ended at token 1"):
        fresh.take(reader)
