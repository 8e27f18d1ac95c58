"""Named interleavings in which the server forgets nothing. The numbers are those of docs/protocol.md.

The judge of `LaneWorld` looks at every call; what a test asserts comes on top.
"""

import pytest

from shardline_cluster.queue.records import DisconnectAction, RequestState
from tests.cluster.queue.lane_stage import SetStage, Stage
from tests.cluster.queue.lane_world import TICK_MS, Wish

LONG_MS = 30_000


def running_on_l0(stage: Stage, tokens: int = 1) -> None:
    """The first client's request runs on L0 and has some tokens, which the client has read."""
    stage.come("R0")
    stage.claim("L0")
    stage.work("L0", tokens)
    stage.read("R0")
    assert len(stage.client().got[0]) == tokens


def test_01_a_commit_whose_reply_is_lost_is_resent_and_adds_nothing_twice(stage_on: SetStage) -> None:
    stage = stage_on(length=3)
    stage.come("R0")
    stage.claim("L0")
    leader = stage.leader("L0")

    for tokens in (1, 2, 3, 4):
        stage.generate("L0")
        call = leader.commit()
        stage.half(leader, call)
        stage.half(leader, call)
        stage.world.push(leader, call)
        assert stage.record().logs[0].num_tokens == tokens

    assert stage.record().state is RequestState.DONE
    assert not leader.running
    stage.finish()


def test_02_a_claim_whose_reply_is_lost_brings_the_same_again(stage_on: SetStage) -> None:
    stage = stage_on()
    stage.come("R0")
    leader = stage.leader("L0")

    call = leader.claim()
    stage.half(leader, call)
    stage.claim("L1")
    stage.world.push(leader, call)

    assert [held.id for held in leader.running.values()] == [stage.record().info.id]
    assert stage.record().epoch == 1
    stage.finish()


def test_02_a_stale_copy_of_an_older_claim_does_nothing(stage_on: SetStage) -> None:
    stage = stage_on()
    leader = stage.leader("L0")
    first = leader.claim()
    stage.world.duplicate(leader, first)
    stage.world.push(leader, first)
    stage.claim("L0")
    stage.come("R0")

    stage.world.execute(leader.incarnation, first)

    assert first.copies == 0
    assert stage.record().state is RequestState.WAITING
    stage.finish()


def test_03_a_zombie_that_commits_after_the_reclaim_is_fenced(stage_on: SetStage) -> None:
    stage = stage_on()
    running_on_l0(stage)
    stage.generate("L0")
    stage.world.pause("L0")
    stage.wait(stage.world.terms.lease_ms + TICK_MS)
    stage.claim("L1")
    stage.work("L1")

    stage.world.wake("L0")
    stage.commit("L0")

    assert not stage.leader("L0").running
    assert (stage.owner(), stage.record().logs[0].num_tokens) == ("L1", 2)
    stage.finish()


def test_04_a_prefill_longer_than_the_lease_keeps_its_request(stage_on: SetStage) -> None:
    stage = stage_on(Wish(prefill_ms=LONG_MS))
    stage.come("R0")
    stage.claim("L0")

    stage.wait(LONG_MS - TICK_MS)
    stage.claim("L1")

    record = stage.record()
    assert (record.state, record.epoch, record.attempts, stage.owner()) == (RequestState.RUNNING, 1, 0, "L0")
    stage.finish()


@pytest.mark.parametrize("with_token", [False, True])
def test_05_a_leader_that_stops_its_heartbeat_loses_its_requests(stage_on: SetStage, with_token: bool) -> None:
    """That a wedged step stops the heartbeat is the replica's own test."""
    stage = stage_on()
    stage.come("R0")
    stage.claim("L0")
    if with_token:
        stage.work("L0")

    stage.world.pause("L0")
    stage.wait(stage.world.terms.lease_ms + TICK_MS)

    assert (stage.record().state, stage.record().attempts) == (RequestState.WAITING, 0 if with_token else 1)
    stage.finish()


@pytest.mark.parametrize("executed", ["before the end", "after the end"])
def test_10_a_finish_between_reading_and_listening_is_not_missed(stage_on: SetStage, executed: str) -> None:
    stage = stage_on(length=1)
    running_on_l0(stage)
    stage.world.leave(stage.client())
    stage.flush(stage.router("R0"))
    router = stage.router("R1")
    stage.world.open(stage.client(), router)
    attach = router.wire.unanswered()[-1]

    if executed == "before the end":
        stage.world.execute(router.incarnation, attach)
    stage.work("L0")
    while router.mail:
        router.read_message()
    if executed == "after the end":
        stage.world.execute(router.incarnation, attach)
    stage.world.receive(router, attach)
    stage.flush(router)

    assert stage.record().state is RequestState.DONE
    assert stage.client().end is not None
    assert len(stage.client().got[0]) == 2


def test_11_a_lost_message_is_made_good_within_the_silence(stage_on: SetStage) -> None:
    stage = stage_on()
    running_on_l0(stage)
    stage.work("L0")
    stage.router("R0").mail.clear()

    stage.wait(stage.world.terms.silence_ms + TICK_MS)
    stage.flush(stage.router("R0"))

    assert len(stage.client().got[0]) == 2
    stage.finish()


@pytest.mark.parametrize("action", [DisconnectAction.GRACE, DisconnectAction.CANCEL])
def test_12_a_client_of_a_dead_router_has_two_leases_to_come_back(stage_on: SetStage, action: DisconnectAction) -> None:
    stage = stage_on(Wish(on_disconnect=action, prefill_ms=90_000))
    stage.come("R0")
    stage.claim("L0")
    stage.world.crash("R0")

    stage.wait(3 * stage.world.terms.lease_ms - 2 * TICK_MS)
    stage.come("R1")
    stage.wait(3 * stage.world.terms.lease_ms)

    assert stage.record().state is RequestState.RUNNING
    stage.finish()
    assert stage.record().state is RequestState.DONE


@pytest.mark.parametrize("action", [DisconnectAction.GRACE, DisconnectAction.CANCEL])
@pytest.mark.parametrize("others_router", ["another", "the dead one"])
def test_12_another_client_that_leaves_takes_no_lease_from_it(
    stage_on: SetStage, action: DisconnectAction, others_router: str
) -> None:
    """Both wait for one request, of one key; the other one also leaves from a router that lives."""
    wish = Wish(key="a", on_disconnect=action, prefill_ms=90_000)
    stage = stage_on(wish, wish)
    stage.come("R0")
    stage.claim("L0")
    stage.come("R1" if others_router == "another" else "R0", 1)
    stage.world.crash("R0")
    stage.wait(stage.world.terms.lease_ms)
    if others_router == "the dead one":
        stage.come("R1", 1)

    stage.world.leave(stage.client(1))
    stage.flush(stage.router("R1"))
    stage.wait(2 * stage.world.terms.lease_ms - 2 * TICK_MS)

    assert stage.record().state is RequestState.RUNNING
    stage.come("R1")
    stage.finish()
    assert stage.record().state is RequestState.DONE


def test_a_duplicates_client_has_no_say_before_its_router_listens(stage_on: SetStage) -> None:
    wish = Wish(key="a", on_disconnect=DisconnectAction.CANCEL, prefill_ms=90_000)
    stage = stage_on(wish, wish)
    stage.come("R0")
    router = stage.router("R1")
    stage.world.open(stage.client(1), router)
    stage.world.push(router, router.wire.unanswered()[-1])
    assert [call.kind for call in router.wire.unanswered()] == ["attach"]
    stage.world.crash("R1")

    stage.world.leave(stage.client())
    stage.flush(stage.router("R0"))

    assert stage.record(1).state is RequestState.CANCELLED
    stage.finish()


@pytest.mark.parametrize("action", list(DisconnectAction))
def test_12_who_does_not_come_back_from_a_dead_router_decided_before(
    stage_on: SetStage, action: DisconnectAction
) -> None:
    stage = stage_on(Wish(on_disconnect=action, prefill_ms=90_000))
    stage.come("R0")
    stage.claim("L0")
    stage.world.crash("R0")

    stage.wait(3 * stage.world.terms.lease_ms + 2 * TICK_MS)

    goes_on = action is DisconnectAction.CONTINUE
    assert stage.record().state is (RequestState.RUNNING if goes_on else RequestState.CANCELLED)


def test_13_a_cancel_ends_at_once_though_the_owner_is_dead(stage_on: SetStage) -> None:
    stage = stage_on()
    running_on_l0(stage)
    stage.generate("L0")
    stage.leader("L0").commit()
    stage.world.crash("L0")

    stage.world.cancel(stage.client(), stage.router("R0"))
    stage.flush(stage.router("R0"))
    stage.world.arrive_late(0)

    end = stage.client().end
    assert end is not None
    assert (end.state, end.offsets) == (RequestState.CANCELLED, (1,))
    assert stage.record().logs[0].num_tokens == 1
    stage.finish()


@pytest.mark.parametrize("running", [False, True])
def test_14_a_deadline_ends_a_request_with_or_without_an_owner(stage_on: SetStage, running: bool) -> None:
    stage = stage_on(Wish(timeout_ms=6 * TICK_MS))
    if running:
        running_on_l0(stage)
    else:
        stage.come("R0")

    stage.wait(7 * TICK_MS)
    stage.read("R0")

    end = stage.client().end
    assert end is not None
    assert (end.state, end.offsets) == (RequestState.EXPIRED, (1 if running else 0,))
    stage.finish()


@pytest.mark.parametrize("first", ["a router", "the other leader"])
def test_17_after_an_outage_the_first_that_reconnects_robs_nobody(stage_on: SetStage, first: str) -> None:
    stage = stage_on(Wish(), Wish(on_disconnect=DisconnectAction.GRACE, prefill_ms=90_000))
    running_on_l0(stage)
    stage.come("R1", 1)
    stage.claim("L1")
    stage.world.leave(stage.client(1))
    stage.flush(stage.router("R1"))
    stage.world.outage(20_000)
    stage.wait(20_000 + TICK_MS // 2)

    if first == "a router":
        stage.reconnect("R0")
        stage.world.push(stage.router("R0"), stage.router("R0").sweep())
    else:
        stage.reconnect("L1")
        stage.claim("L1")

    assert (stage.record(0).state, stage.record(0).epoch, stage.owner(0)) == (RequestState.RUNNING, 1, "L0")
    assert (stage.record(1).state, stage.owner(1)) == (RequestState.RUNNING, "L1")
    stage.finish()
    assert [stage.record(k).state for k in (0, 1)] == [RequestState.DONE, RequestState.DONE]


def test_19_a_rolling_restart_under_a_long_generation_counts_no_attempt(stage_on: SetStage) -> None:
    stage = stage_on(length=12)
    stage.come("R0")

    for slot in ("L0", "L1", "L0", "L1"):
        stage.claim(slot)
        stage.work(slot, 2)
        stage.world.drain(stage.leader(slot))
        stage.commit(slot)
        stage.world.exit_drained(slot)
        assert stage.world.processes[slot] is None
        stage.world.bury(stage.world.dead[-1])
        stage.world.start(slot)

    record = stage.record()
    assert (record.state, record.epoch, record.attempts) == (RequestState.WAITING, 4, 0)
    assert record.logs[0].num_tokens == 8
    stage.finish()
    assert stage.record().state is RequestState.DONE


def test_26_three_sequences_of_different_lengths_are_each_resumed(stage_on: SetStage) -> None:
    stage = stage_on(Wish(num_sequences=3), length=2)
    stage.come("R0")
    stage.claim("L0")
    stage.work("L0", 3)
    stage.read("R0")
    stage.world.leave(stage.client())
    stage.flush(stage.router("R0"))
    stage.work("L0")

    stage.come("R1")
    stage.finish()

    assert [len(got) for got in stage.client().got] == [3, 4, 5]
    assert stage.client().end is not None


def test_31_a_detach_that_was_overtaken_by_the_new_attach_is_ignored(stage_on: SetStage) -> None:
    stage = stage_on(Wish(on_disconnect=DisconnectAction.CANCEL))
    running_on_l0(stage)
    router = stage.router("R0")
    stage.world.leave(stage.client())
    detach = router.wire.unanswered()[-1]
    stage.world.open(stage.client(), router)
    attach = router.wire.unanswered()[-1]
    assert (detach.kind, attach.kind) == ("detach", "attach")

    stage.world.push(router, attach)
    stage.world.push(router, detach)

    assert stage.record().state is RequestState.RUNNING
    stage.work("L0")
    stage.read("R0")
    assert len(stage.client().got[0]) == 2
    stage.finish()
