"""Named interleavings in which another server takes over that lacks the last writes. Numbers as in docs/protocol.md."""

import pytest

from shardline_cluster.queue.records import DisconnectAction, RequestState
from tests.cluster.queue.lane_stage import SetStage, Stage
from tests.cluster.queue.lane_world import TICK_MS, Wish
from tests.cluster.queue.leader_process import LeaderProcess


def running_on_l0(stage: Stage, tokens: int = 1) -> None:
    """The first client's request runs on L0 and has some tokens, which the client has read."""
    stage.come("R0")
    stage.claim("L0")
    stage.work("L0", tokens)
    stage.read("R0")
    assert len(stage.client().got[0]) == tokens


def wait_for_the_hold(stage: Stage) -> None:
    """Time passes until the hold is over; whoever lives restores what it knows."""
    stage.wait(stage.world.terms.hold_ms + 2 * TICK_MS)


def test_03_a_zombie_with_an_equal_epoch_is_fenced_by_its_nonce(stage_on: SetStage) -> None:
    stage = stage_on()
    stage.come("R0")
    before_claim = stage.world.save()
    stage.claim("L0")
    stage.work("L0")
    stage.world.pause("L0")
    stage.world.go_back(before_claim)
    wait_for_the_hold(stage)
    stage.claim("L1")
    stage.work("L1")
    assert stage.record().epoch == 1

    stage.world.wake("L0")
    stage.generate("L0")
    stage.reconnect("L0")

    assert not stage.leader("L0").running
    assert stage.record().logs[0].num_tokens == 1
    stage.finish()


def test_04_a_prefill_keeps_its_request_though_its_claim_is_forgotten(stage_on: SetStage) -> None:
    stage = stage_on(Wish(prefill_ms=30_000))
    stage.come("R0")
    before_claim = stage.world.save()
    stage.claim("L0")

    stage.world.go_back(before_claim)
    stage.wait(20_000)
    stage.claim("L1")

    record = stage.record()
    assert (record.state, record.epoch, record.attempts, stage.owner()) == (RequestState.RUNNING, 1, 0, "L0")
    stage.finish()


@pytest.mark.parametrize("first", ["L0", "R0", "L1"])
@pytest.mark.parametrize("lost", [1, 5, 50])
def test_06_forgotten_commits_come_back_whoever_is_first(stage_on: SetStage, lost: int, first: str) -> None:
    stage = stage_on(length=60)
    running_on_l0(stage, 52 - lost)
    saved = stage.world.save()
    stage.work("L0", lost)
    stage.read("R0")
    seen = list(stage.client().got[0])

    stage.world.go_back(saved)
    stage.reconnect(first)
    if first == "L1":
        stage.claim("L1")
    stage.finish()

    assert stage.client().got[0][:52] == seen
    assert (stage.record().state, stage.record().epoch) == (RequestState.DONE, 1)


@pytest.mark.parametrize("gone", [False, True], ids=["client there", "client gone"])
@pytest.mark.parametrize("what", ["submit", "claim", "finish", "cancel", "release"])
def test_07_whatever_is_forgotten_comes_to_the_end_that_was_told(stage_on: SetStage, what: str, gone: bool) -> None:
    stage = stage_on(length=2)
    steps = {
        "submit": lambda: stage.come("R0"),
        "claim": lambda: stage.claim("L0"),
        "release": lambda: hand_back(stage),
        "finish": lambda: stage.work("L0", 3),
        "cancel": lambda: stage.world.cancel(stage.client(), stage.router("R0")),
    }
    before = {"submit": (), "claim": ("submit",)}.get(what, ("submit", "claim"))
    for step in before:
        steps[step]()
    saved = stage.world.save()

    steps[what]()
    stage.flush(stage.router("R0"))
    stage.read("R0")
    if gone:
        stage.world.leave(stage.client(), for_good=True)
        stage.flush(stage.router("R0"))
    stage.world.go_back(saved)
    stage.finish()

    expected = RequestState.CANCELLED if what == "cancel" else RequestState.DONE
    assert stage.record().state is expected
    assert stage.record().attempts == 0


def hand_back(stage: Stage) -> None:
    """L0 is told to drain, hands everything back and exits."""
    stage.world.drain(stage.leader("L0"))
    stage.commit("L0")
    stage.world.exit_drained("L0")
    assert stage.world.processes["L0"] is None


def test_08_the_routers_ids_win_where_the_leader_is_dead(stage_on: SetStage) -> None:
    stage = stage_on()
    running_on_l0(stage)
    saved = stage.world.save()
    stage.work("L0", 2)
    stage.read("R0")
    seen = list(stage.client().got[0])
    stage.world.crash("L0")

    stage.world.go_back(saved)
    stage.finish()

    assert len(seen) == 3
    assert stage.client().failure == ""
    assert stage.client().got[0][:3] == seen
    assert stage.record().state is RequestState.DONE


def test_09_who_had_more_than_anybody_left_alive_is_told_of_the_loss(stage_on: SetStage) -> None:
    stage = stage_on()
    running_on_l0(stage)
    saved = stage.world.save()
    stage.work("L0", 2)
    stage.read("R0")
    stage.world.crash("L0")
    stage.world.crash("R0")

    stage.world.go_back(saved)
    stage.finish()

    assert "differ" in stage.client().failure
    assert len(stage.client().got[0]) == 3
    assert stage.record().state is RequestState.DONE


def test_11_a_message_of_the_old_server_is_not_delivered(stage_on: SetStage) -> None:
    stage = stage_on()
    stage.come("R0")
    stage.claim("L0")
    saved = stage.world.save()
    stage.work("L0")
    stage.world.pause("L0")
    stage.world.go_back(saved, keep_replies=True)
    router = stage.router("R0")
    stage.reconnect("R0")

    assert [m.sequences for m in router.mail if m.sequences]
    stage.read("R0")

    assert stage.client().got == [[]]
    stage.finish()


def test_14_a_deadline_in_a_hold_waits_for_its_end(stage_on: SetStage) -> None:
    stage = stage_on(Wish(timeout_ms=6 * TICK_MS))
    running_on_l0(stage)
    stage.world.go_back(stage.world.save())
    stage.wait(6 * TICK_MS)

    stage.generate("L0")
    stage.commit("L0")
    assert (stage.record().state, stage.record().logs[0].num_tokens) == (RequestState.RUNNING, 1)

    wait_for_the_hold(stage)
    assert stage.record().state is RequestState.EXPIRED
    stage.finish()


def test_14_an_expiry_that_was_told_stays_though_the_leader_never_heard(stage_on: SetStage) -> None:
    stage = stage_on(Wish(timeout_ms=6 * TICK_MS))
    running_on_l0(stage)
    saved = stage.world.save()
    stage.world.pause("L0")
    stage.wait(7 * TICK_MS)
    stage.read("R0")
    told = stage.client().end
    stage.world.wake("L0")
    stage.world.judge.faults = 0  # L0 only slept for less than a lease: no failure

    stage.world.go_back(saved)
    stage.generate("L0")
    stage.reconnect("L0")
    stage.finish()

    assert told is not None
    assert told.state is RequestState.EXPIRED
    assert stage.record().end is not None
    assert told.same_as(stage.record().end or told)


def test_15_fifty_submits_over_four_routers_and_a_rollback_are_one_request(stage_on: SetStage) -> None:
    stage = stage_on(*[Wish(key="a")] * 50)
    for slot in ("R2", "R3"):
        stage.world.start(slot)
    saved = stage.world.save()
    for number in range(25):
        stage.come(f"R{number % 4}", number)
    stage.world.go_back(saved)
    for number in range(25, 50):
        stage.reconnect(f"R{number % 4}")
        stage.come(f"R{number % 4}", number)

    stage.finish()

    assert len({str(client.got) for client in stage.world.clients}) == 1
    assert stage.record().epoch == 1
    assert len(stage.world.judge.seen.shots) == 1


def test_30_a_promoted_server_whose_clock_is_behind_robs_nobody_and_loses_no_mail(stage_on: SetStage) -> None:
    stage = stage_on(Wish(prefill_ms=60_000))
    stage.come("R0")
    stage.claim("L0")
    stage.world.go_back(stage.world.save())
    stage.world.run(stage.harness.advance(-10_000))

    stage.wait(30_000)
    stage.claim("L1")
    stage.world.drain(stage.leader("L1"))
    stage.wait(stage.world.terms.heartbeat_ms + TICK_MS)

    assert (stage.record().state, stage.record().epoch, stage.owner()) == (RequestState.RUNNING, 1, "L0")
    assert stage.leader("L1").held.draining
    stage.finish()


def test_32_nothing_is_held_for_ever_by_a_restore_whose_reply_is_lost(stage_on: SetStage) -> None:
    stage = stage_on()
    stage.come("R0")
    before_claim = stage.world.save()
    stage.claim("L0")
    stage.world.go_back(before_claim)
    leader = stage.leader("L0")
    stage.world.reconnect(leader)
    for _ in range(2):  # the first reply tells of another server, the next commit asks how the request stands there
        stage.world.push(leader, leader.commit())
    restore = leader.wire.unanswered()[-1]
    assert restore.kind == "restore"

    stage.half(leader, restore)
    stage.world.drain(leader)
    stage.world.push(leader, leader.commit())
    stage.world.push(leader, restore)
    stage.flush(leader)
    stage.wait(2 * stage.world.terms.heartbeat_ms)

    assert leader.held.owes_nothing
    assert stage.record().state is RequestState.WAITING
    stage.finish()
    assert stage.record().attempts == 0


def test_a_router_that_slept_through_the_hold_restores_under_a_new_owner(stage_on: SetStage) -> None:
    stage = stage_on()
    stage.come("R0")
    before_claim = stage.world.save()
    stage.claim("L0")
    stage.work("L0")
    stage.read("R0")
    stage.world.crash("L0")
    stage.world.pause("R0")
    stage.world.go_back(before_claim)
    wait_for_the_hold(stage)
    stage.claim("L1")
    stage.generate("L1")

    stage.world.wake("R0")
    stage.reconnect("R0")
    stage.commit("L1")

    assert not stage.leader("L1").running
    assert stage.client().failure == ""
    stage.finish()
    assert stage.record().state is RequestState.DONE


@pytest.mark.parametrize("seen_to_exit", [False, True])
def test_a_drained_leader_whose_release_is_forgotten_did_not_crash(stage_on: SetStage, seen_to_exit: bool) -> None:
    stage = stage_on()
    stage.come("R0")
    stage.claim("L0")
    saved = stage.world.save()
    hand_back(stage)
    stage.world.go_back(saved)
    stage.reconnect("R0")

    if seen_to_exit:
        stage.world.bury(stage.world.dead[-1])
        assert stage.record().state is RequestState.RUNNING
    stage.wait(3 * stage.world.terms.lease_ms)

    assert (stage.record().state, stage.record().attempts) == (RequestState.WAITING, 0)
    stage.finish()


def test_when_all_is_lost_a_fresh_router_is_served_and_an_old_request_waits(stage_on: SetStage) -> None:
    stage = stage_on(Wish(), Wish())
    running_on_l0(stage)
    stage.world.lose_everything()
    stage.world.start("R2")
    stage.world.start("L2")
    stage.come("R2", 1)

    stage.claim("L2")
    assert stage.record(1).state is RequestState.RUNNING
    stage.finish()

    assert [stage.record(k).state for k in (0, 1)] == [RequestState.DONE] * 2
    assert stage.client().failure == ""


def test_when_all_is_lost_a_twin_under_the_same_key_waits_for_the_first(stage_on: SetStage) -> None:
    stage = stage_on(Wish(key="a"), Wish(key="a"))
    running_on_l0(stage)
    stage.world.lose_everything()
    stage.world.start("R2")
    stage.world.start("L2")
    stage.come("R2", 1)

    stage.claim("L2")
    assert not stage.leader("L2").running
    stage.finish()

    assert [client.failure for client in stage.world.clients] == ["", ""]
    assert stage.client(0).got == stage.client(1).got


def test_when_all_is_lost_a_client_at_a_fresh_router_is_told_to_wait(stage_on: SetStage) -> None:
    stage = stage_on()
    running_on_l0(stage)
    stage.world.leave(stage.client())
    stage.flush(stage.router("R0"))
    stage.world.lose_everything()
    stage.world.start("R2")

    stage.come("R2")
    assert stage.client().failure == ""
    stage.finish()

    assert stage.client().failure == ""
    assert stage.record().state is RequestState.DONE


def test_a_fresh_cluster_serves_in_its_first_hold(stage_on: SetStage) -> None:
    stage = stage_on()
    stage.world.lose_everything()
    for slot in ("L0", "L1", "R0", "R1"):
        stage.world.crash(slot)
        stage.world.start(slot)

    stage.come("R0")
    stage.claim("L0")

    leader = stage.world.processes["L0"]
    assert isinstance(leader, LeaderProcess)
    assert leader.running
    stage.finish()


@pytest.mark.parametrize("action", [DisconnectAction.CANCEL, DisconnectAction.GRACE])
def test_a_disconnect_in_a_hold_ends_nothing_before_it_is_over(stage_on: SetStage, action: DisconnectAction) -> None:
    stage = stage_on(Wish(on_disconnect=action, prefill_ms=60_000))
    stage.come("R0")
    stage.claim("L0")
    stage.world.go_back(stage.world.save())
    stage.reconnect("R0")
    stage.world.leave(stage.client(), for_good=True)
    stage.flush(stage.router("R0"))

    stage.wait(stage.world.terms.hold_ms - TICK_MS)
    assert stage.record().state is RequestState.RUNNING

    stage.wait(8 * TICK_MS + 4 * TICK_MS)
    assert stage.record().state is RequestState.CANCELLED
