"""Streams of a server that forgets its last writes."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import DataLossError
from shardline_cluster.queue.answers import OnHold
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import RequestEnd, RequestState, SequenceLog
from shardline_cluster.router.streams.lane_calls import AttachStream, DetachStream, RestoreRequest
from tests.cluster.router.scripted_leader import STOP, ScriptedLeader
from tests.cluster.router.stepped_router import ID, StartRouter, SteppedRouter, SteppedServer, submission


async def test_forgotten_tokens_are_restored_before_the_router_attaches_again(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    assert await router.log(ID) == seen == (1, 2, 3)
    assert await leader.commit(ID, [4]) is not None
    await router.settle()
    assert router.take(reader) == (4,)


async def test_a_restore_from_memory_does_not_count_for_a_stream_that_was_opened_meanwhile(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    info = await router.submit(submission(ID, router.drawn), wanted=False)
    await router.settle()
    world.server.rollback(world.server.snapshot())
    await router.sweep()
    reader = router.open(ID, info=info)

    await router.settle()
    await leader.claim()
    world.clock_ms += router.lane.terms.hold_ms
    await leader.claim()
    await leader.commit(ID, [1], finish=STOP)
    await router.silence()
    await router.settle()

    assert router.take(reader) == (1,)


async def test_a_reader_that_leaves_twice_leaves_once(router: SteppedRouter) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    reader = await router.submit_and_open(submission(ID, router.drawn))
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


async def test_a_message_of_the_old_server_read_after_the_rollback_is_not_delivered(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    old = router.drawn
    router.lane.answered("new", router.now_ms)

    assert router.lane.stale(old, asked_in=asked_in)
    assert not router.lane.stale(old, asked_in=router.lane.generation)  # the old server is back
    assert not router.lane.stale("new", asked_in=asked_in)


async def test_a_router_that_slept_through_the_hold_does_not_join_its_tokens_to_a_new_owners(
    world: SteppedServer, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    reader = await router.submit_and_open(submission(ID, router.drawn))
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
    await router.submit(submission(ID, router.drawn, background=True))
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


async def test_an_end_that_lies_past_what_is_held_is_told_to_no_server(
    world: SteppedServer, start: StartRouter, router: SteppedRouter, leader: ScriptedLeader
) -> None:
    await router.submit(submission(ID, router.drawn, background=True))
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
