"""Contract of every request queue: attaching, detaching, reading, cancelling, forgetting, messages and views."""

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.answers import Ended, ForgetCode, Gone, Snapshot
from shardline_cluster.queue.calls import Member, MemberRole, SequenceCommit
from shardline_cluster.queue.published import Published, Wake
from shardline_cluster.queue.records import DisconnectAction, RequestState
from tests.cluster.queue.lane_calls import STOP, TENANT, HandLeader, log_ids, look, some, submit
from tests.cluster.queue.lane_harness import LaneHarness


async def published(harness: LaneHarness, incarnation: str = "router-1") -> list[Published]:
    """What a router was told."""
    return [m for m in await harness.published(incarnation) if isinstance(m, Published)]


async def test_a_listener_is_told_of_claim_tokens_and_end(harness: LaneHarness) -> None:
    await harness.watch("router-1")
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1, 2]))
    await leader.commit(granted, some(2, [3], STOP))

    messages = await published(harness)

    assert {(m.identity, m.id, m.epoch) for m in messages} == {(await harness.identity(), info.id, 1)}
    assert [m.sequences for m in messages] == [(), (some(0, [1, 2]),), (some(2, [3], STOP),)]
    assert [m.end and m.end.state for m in messages] == [None, None, RequestState.DONE]


async def test_published_is_what_was_appended(harness: LaneHarness) -> None:
    await harness.watch("router-1")
    await submit(harness, num_sequences=2)
    leader = HandLeader(harness.queue())
    granted = (await leader.claim())[0]
    await leader.commit(granted, some(0, [1, 2]))
    await leader.commit(granted, some(0, [1, 2]))
    await leader.commit(granted, some(1, [2, 3]), some(0, [4], STOP, 1))

    appended: list[SequenceCommit] = [s for m in await published(harness) for s in m.sequences]

    assert appended == [some(0, [1, 2]), some(2, [3]), some(0, [4], STOP, 1)]


async def test_only_listeners_are_told(harness: LaneHarness) -> None:
    for router in ("router-1", "router-2"):
        await harness.watch(router)
    info = await submit(harness, router="router-1")
    other = await submit(harness, 2, router="router-1", background=True)
    await harness.queue().attach("router-2", 1, info.id, TENANT)
    await harness.queue().detach("router-1", 1, info.id)
    await HandLeader(harness.queue()).claim()

    assert await published(harness, "router-1") == []
    assert [m.id for m in await published(harness, "router-2")] == [info.id]
    assert (await look(harness, other)).state is RequestState.RUNNING


async def test_a_submission_wakes_one_idle_leader(harness: LaneHarness) -> None:
    leaders = [HandLeader(harness.queue(), name) for name in ("leader-1", "leader-2", "leader-3")]
    for leader in leaders:
        await harness.watch(leader.incarnation)
        await leader.claim()
    await submit(harness, 1)
    await submit(harness, 2)

    woken = [await harness.published(leader.incarnation) for leader in leaders]

    assert sorted(len(messages) for messages in woken) == [0, 1, 1]
    assert {m for messages in woken for m in messages} == {Wake()}


async def test_mail_wakes_its_leader(harness: LaneHarness) -> None:
    await harness.watch("leader-1")
    info = await submit(harness)
    await HandLeader(harness.queue()).claim_one()

    await harness.queue().cancel(info.id, TENANT)

    assert Wake() in await harness.published("leader-1")


async def test_attach_reads_from_token_zero(harness: LaneHarness) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1, 2, 3]))

    snapshot = (await harness.queue().attach("router-2", 1, info.id, TENANT)).value

    assert isinstance(snapshot, Snapshot)
    assert log_ids(snapshot.logs) == [1, 2, 3]
    assert (snapshot.state, snapshot.epoch) == (RequestState.RUNNING, 1)


async def test_another_tenants_request_does_not_exist(harness: LaneHarness) -> None:
    info = await submit(harness)
    queue = harness.queue()

    answers = [
        (await queue.look(info.id, "stranger")).value,
        (await queue.attach("router-1", 1, info.id, "stranger")).value,
        (await queue.cancel(info.id, "stranger")).value,
        (await queue.cancel("lane-nobody", TENANT)).value,
    ]

    assert answers == [Gone()] * 4
    assert (await queue.forget(info.id, "stranger")).value is ForgetCode.GONE
    assert (await look(harness, info)).state is RequestState.WAITING


async def test_an_older_detach_is_ignored(harness: LaneHarness) -> None:
    info = await submit(harness, on_disconnect=DisconnectAction.CANCEL)
    await harness.queue().attach("router-1", 2, info.id, TENANT)

    await harness.queue().detach("router-1", 1, info.id)
    assert (await look(harness, info)).state is RequestState.WAITING

    await harness.queue().detach("router-1", 2, info.id)
    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_the_last_listener_counts(harness: LaneHarness) -> None:
    info = await submit(harness, on_disconnect=DisconnectAction.CANCEL)
    await harness.queue().attach("router-2", 1, info.id, TENANT)

    await harness.queue().detach("router-1", 1, info.id)
    assert (await look(harness, info)).state is RequestState.WAITING

    await harness.queue().detach("router-2", 1, info.id)
    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_a_grace_ends_a_request_nobody_comes_back_to(harness: LaneHarness) -> None:
    info = await submit(harness, grace_ms=1_000)
    await harness.queue().sweep("router-1")
    await harness.queue().detach("router-1", 1, info.id)

    await harness.advance(999)
    await harness.queue().sweep("router-1")
    assert (await look(harness, info)).state is RequestState.WAITING

    await harness.advance(1)
    await harness.queue().sweep("router-1")
    assert (await look(harness, info)).state is RequestState.CANCELLED


async def test_who_comes_back_within_the_grace_stops_it(harness: LaneHarness) -> None:
    info = await submit(harness, grace_ms=1_000)
    await harness.queue().sweep("router-1")
    await harness.queue().detach("router-1", 1, info.id)
    await harness.queue().attach("router-1", 2, info.id, TENANT)

    await harness.advance(1_500)
    await harness.queue().sweep("router-1")

    assert (await look(harness, info)).state is RequestState.WAITING


async def test_a_request_that_is_to_go_on_goes_on(harness: LaneHarness) -> None:
    info = await submit(harness, on_disconnect=DisconnectAction.CONTINUE, grace_ms=0)
    await harness.queue().detach("router-1", 1, info.id)

    for _ in range(20):
        await harness.advance(5_000)
        await harness.queue().sweep("router-2")

    assert (await look(harness, info)).state is RequestState.WAITING


@pytest.mark.parametrize("num_tokens", [0, 2])
async def test_a_cancel_tells_the_end_and_every_id_before_it(harness: LaneHarness, num_tokens: int) -> None:
    info = await submit(harness)
    leader = HandLeader(harness.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, range(num_tokens)))

    ended = (await harness.queue().cancel(info.id, TENANT)).value
    again = (await harness.queue().cancel(info.id, TENANT)).value

    assert isinstance(ended, Ended)
    assert (ended.end.state, ended.end.offsets) == (RequestState.CANCELLED, (num_tokens,))
    assert log_ids(ended.logs) == list(range(num_tokens))
    assert again == ended


async def test_only_an_ended_request_can_be_forgotten(harness: LaneHarness) -> None:
    info = await submit(harness, idempotency_key="k")
    queue = harness.queue()

    early = (await queue.forget(info.id, TENANT)).value
    await queue.cancel(info.id, TENANT)
    codes = [(await queue.forget(info.id, TENANT)).value for _ in range(2)]

    assert [early, *codes] == [ForgetCode.NOT_ENDED, ForgetCode.FORGOTTEN, ForgetCode.GONE]
    assert (await queue.look(info.id, TENANT)).value == Gone()
    assert await submit(harness, 2, idempotency_key="k")


async def test_the_view_counts(harness: LaneHarness) -> None:
    queue = harness.queue()
    await queue.register(Member(incarnation="router-1", role=MemberRole.ROUTER))
    leader = HandLeader(queue)
    await leader.register()
    for number in range(4):
        await submit(harness, number)
    a, b = await leader.claim(free_slots=2)
    await leader.commit(a, some(0, [1]))
    await leader.release(a)
    await harness.advance(70)

    view = (await queue.view()).value

    assert (view.waiting_requests, view.waiting_tokens) == (2, 40)
    assert (view.running_requests, view.handed_back_requests) == (1, 1)
    assert (view.oldest_wait_ms, view.hold_ends_ms, view.num_routers) == (70, None, 1)
    assert [(m.incarnation, m.num_held, m.numerics_id) for m in view.leaders] == [("leader-1", 1, "n1")]
    assert view.now_ms == await harness.now_ms()
    assert (await look(harness, b.info)).state is RequestState.RUNNING


async def test_a_reply_tells_server_clock_and_hold(harness: LaneHarness) -> None:
    reply = await harness.queue().view()

    assert (reply.identity, reply.now_ms, reply.in_hold) == (await harness.identity(), await harness.now_ms(), False)


async def test_an_outage_raises_and_passes(harness: LaneHarness) -> None:
    info = await submit(harness)
    await harness.set_outage(True)

    with pytest.raises(QueueUnavailableError):
        await harness.queue().look(info.id, TENANT)

    await harness.set_outage(False)
    assert (await look(harness, info)).state is RequestState.WAITING
