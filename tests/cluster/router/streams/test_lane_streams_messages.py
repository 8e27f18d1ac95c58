"""Streams whose messages are lost, late or early."""

import pytest

from shardline_cluster.errors import DataLossError
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.router.streams.lane_calls import AttachStream, RestoreRequest
from tests.cluster.router.scripted_leader import STOP, ScriptedLeader
from tests.cluster.router.stepped_router import ID, StartRouter, SteppedRouter, SteppedServer, submission


async def test_a_lost_message_is_made_good_when_nothing_was_delivered_for_too_long(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    reader = await router.submit_and_open(submission(ID, router.drawn))
    await leader.claim()
    await leader.commit(ID, [1, 2])
    await router.settle()
    await router.silence()  # what was delivered since the first reading is read once more
    await router.settle()
    world.server.lose_messages()
    await leader.commit(ID, [3], finish=STOP)

    (attach,) = await router.silence()
    await router.carry_out(attach)

    assert isinstance(attach, AttachStream)
    assert attach.held == (2,)
    assert router.calls == []
    assert router.take(reader) == (1, 2, 3)
    assert router.lane.stream_of(reader).complete


async def test_another_server_is_read_from_the_beginning(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit_and_open(submission(ID, router.drawn))
    await leader.claim()
    await leader.commit(ID, [1, 2])
    await router.settle()
    await router.silence()
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
    keyed = submission(ID, router.drawn, idempotency_key="k")
    reader = await router.submit_and_open(keyed)
    await leader.claim()
    await leader.commit(ID, [1, 2])
    await router.settle()
    await router.silence()
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

    await router.silence()
    await router.settle()

    with pytest.raises(DataLossError, match="differ"):
        router.take(reader)


async def test_a_message_past_a_gap_is_not_delivered_but_makes_the_router_read(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    await router.submit(submission(ID, router.drawn, background=True))
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
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    reader = await router.submit_and_open(submission(ID, router.drawn))
    older = router.calls[-1]
    hand_over = await router.execute(older)
    router.open(ID)  # attaches again, with a higher number
    await leader.claim()
    await leader.commit(ID, [1])
    await router.settle()

    hand_over()

    assert router.take(reader) == (1,)
    assert router.calls == []
