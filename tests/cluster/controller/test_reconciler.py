"""The reconciler's rules by table, and the promise that they always end where they should, by random schedules."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_cluster.controller.actions import Action, Kill, ReportDead, Start, Stop
from shardline_cluster.controller.fleet_history import FleetHistory, FleetRound
from shardline_cluster.controller.reconciler import Reconciliation, reconcile
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.controller.replica_limits import ReplicaLimits
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from tests.cluster.controller.fleets import PretendedFleet, deployment, status

LIMITS = ReplicaLimits()
PLACE = "tiny-1a2b-0"


def _seen(incarnation: str, *, place: str = PLACE, alive: bool = True, drained: bool = False, placed: bool = True,
          reason: str = "") -> ReplicaObservation:  # fmt: skip
    return ReplicaObservation(place, incarnation, alive=alive, had_drained=drained, reason=reason, placed=placed)


class _Rounds:
    """Plays rounds one after the other, with the history handed on."""

    def __init__(self, *desired: Deployment) -> None:
        self.desired = desired
        self.history = FleetHistory()

    def play(
        self, now_s: float, *seen: ReplicaObservation, statuses: dict[str, ReplicaStatus] | None = None
    ) -> tuple[Action, ...]:
        fleet = FleetRound(desired=self.desired, observed=seen, statuses=statuses or {}, now_s=now_s)
        result: Reconciliation = reconcile(fleet, self.history, LIMITS)
        self.history = result.history
        return result.actions


def _ready(*incarnations: str) -> dict[str, ReplicaStatus]:
    return {incarnation: status(ReplicaState.READY) for incarnation in incarnations}


def test_every_empty_place_gets_a_replica() -> None:
    rounds = _Rounds(deployment(2))

    actions = rounds.play(0.0, _seen("a"))

    assert [a.place.name for a in actions if isinstance(a, Start)] == ["tiny-1a2b-1"]


def test_a_fleet_that_is_as_it_should_be_is_left_alone() -> None:
    rounds = _Rounds(deployment(1))

    first = rounds.play(0.0, _seen("a"), statuses=_ready("a"))
    much_later = rounds.play(100_000.0, _seen("a"), statuses=_ready("a"))

    assert (first, much_later) == ((), ())


def test_a_dead_replica_is_reported_at_once_and_replaced_after_a_pause() -> None:
    rounds = _Rounds(deployment(1))
    rounds.play(0.0, _seen("a"), statuses=_ready("a"))
    dead = _seen("a", alive=False, reason="was killed by SIGKILL")

    at_once = rounds.play(1.0, dead)
    early = rounds.play(1.9)
    later = rounds.play(2.0)

    assert at_once == (ReportDead("tiny-1a2b", "a", False),)
    assert early == ()
    (start,) = later
    assert isinstance(start, Start)
    assert start.reason == "was killed by SIGKILL"


def test_a_report_that_was_lost_is_made_again_without_counting_the_failure_twice() -> None:
    rounds = _Rounds(deployment(1))
    dead = _seen("a", alive=False, reason="exited with 1")

    for now_s in (0.0, 0.5, 0.9):
        assert rounds.play(now_s, dead) == (ReportDead("tiny-1a2b", "a", False),)

    assert rounds.history.place(PLACE).failures == 1


def test_the_pause_doubles_up_to_a_minute_while_a_place_keeps_failing() -> None:
    rounds = _Rounds(deployment(1))
    now_s, pauses = 0.0, []

    for life in range(9):
        rounds.play(now_s, _seen(f"i{life}", alive=False, reason="exited with 1"))
        pauses.append(rounds.history.place(PLACE).not_before_s - now_s)
        now_s += 100.0

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_minute_of_health_forgives_earlier_failures() -> None:
    rounds = _Rounds(deployment(1))
    for life in range(5):
        rounds.play(100.0 * life, _seen(f"i{life}", alive=False))
    rounds.play(1_000.0, _seen("b"), statuses=_ready("b"))
    assert rounds.history.place(PLACE).failures == 5

    rounds.play(1_060.0, _seen("b"), statuses=_ready("b"))
    rounds.play(1_061.0, _seen("b", alive=False))

    assert rounds.history.place(PLACE).failures == 1


def test_what_a_replica_said_of_its_failure_is_kept_as_the_reason() -> None:
    rounds = _Rounds(deployment(1))
    said = {"a": status(ReplicaState.FAILED, reason="no such file: model.gguf")}
    rounds.play(0.0, _seen("a"), statuses=said)

    rounds.play(1.0, _seen("a", alive=False, reason="exited with 1"))

    assert rounds.history.place(PLACE).reason == "no such file: model.gguf"


def test_a_replica_that_drained_after_it_was_ready_is_replaced_without_a_pause() -> None:
    rounds = _Rounds(deployment(1))
    rounds.play(0.0, _seen("a"), statuses=_ready("a"))

    actions = rounds.play(1.0, _seen("a", alive=False, drained=True))

    assert [type(action) for action in actions] == [ReportDead, Start]
    assert actions[0] == ReportDead("tiny-1a2b", "a", True)


def test_a_replica_that_leaves_politely_before_it_was_ever_ready_counts_as_failed() -> None:
    rounds = _Rounds(deployment(1))

    rounds.play(0.0, _seen("a", alive=False, drained=True))

    assert rounds.history.place(PLACE).failures == 1


def test_scaling_down_stops_the_highest_places_once() -> None:
    rounds = _Rounds(deployment(1))
    seen = (_seen("a"), _seen("b", place="tiny-1a2b-1"))

    first, second = (rounds.play(now_s, *seen, statuses=_ready("a", "b")) for now_s in (0.0, 0.5))

    assert [a.incarnation for a in first if isinstance(a, Stop)] == ["b"]
    assert second == ()


def test_a_replica_that_does_not_drain_in_time_is_killed_until_it_is_gone() -> None:
    rounds = _Rounds()
    rounds.play(0.0, _seen("a"), statuses=_ready("a"))

    in_time = rounds.play(15.0, _seen("a"), statuses=_ready("a"))
    over, again = (rounds.play(now_s, _seen("a"), statuses=_ready("a")) for now_s in (15.5, 16.0))

    assert in_time == ()
    assert [type(action) for action in (*over, *again)] == [Kill, Kill]


def test_of_two_replicas_in_one_place_the_one_that_is_further_stays() -> None:
    rounds = _Rounds(deployment(1))

    actions = rounds.play(0.0, _seen("a"), _seen("b"), statuses=_ready("b"))

    assert actions == (Stop("a", "its place is filled twice"),)


def test_a_new_version_of_a_model_has_its_own_places() -> None:
    rounds = _Rounds(deployment(1, lane="tiny-9f9f"))

    actions = rounds.play(0.0, _seen("a"), statuses=_ready("a"))

    assert [type(action) for action in actions] == [Stop, Start]
    assert isinstance(actions[1], Start)
    assert actions[1].place.name == "tiny-9f9f-0"


def test_a_replica_that_never_registers_is_killed_with_the_limit_in_words() -> None:
    rounds = _Rounds(deployment(1))
    rounds.play(0.0, _seen("a"))

    actions = rounds.play(120.5, _seen("a"))

    assert actions == (Kill("a", "it has been STARTING for 120 s; the limit is 120 s"),)


def test_waiting_for_resources_has_no_limit() -> None:
    rounds = _Rounds(deployment(1))
    rounds.play(0.0, _seen("a", placed=False))

    assert rounds.play(1_000_000.0, _seen("a", placed=False)) == ()


def test_loading_has_its_own_longer_limit() -> None:
    rounds = _Rounds(deployment(1))
    loading = {"a": status(ReplicaState.LOADING)}
    rounds.play(0.0, _seen("a"), statuses=loading)

    assert rounds.play(3_600.0, _seen("a"), statuses=loading) == ()
    assert [type(action) for action in rounds.play(3_601.0, _seen("a"), statuses=loading)] == [Kill]


def test_a_ready_replica_that_its_lane_no_longer_hears_is_killed() -> None:
    rounds = _Rounds(deployment(1))
    rounds.play(0.0, _seen("a"), statuses=_ready("a"))

    actions = [rounds.play(0.5 * step, _seen("a")) for step in range(1, 40)]

    assert all(action == () for action in actions[:36])
    assert isinstance(actions[-1][0], Kill)


def test_an_outage_of_the_controller_is_not_counted_as_silence() -> None:
    rounds = _Rounds(deployment(1))
    rounds.play(0.0, _seen("a"), statuses=_ready("a"))

    first_after_the_outage = rounds.play(600.0, _seen("a"))

    assert first_after_the_outage == ()


def test_a_replica_without_room_holds_the_change_of_others_up_for_a_while_only() -> None:
    rounds = _Rounds(deployment(2))
    seen = (_seen("a"), _seen("b", place="tiny-1a2b-1", placed=False))
    rounds.play(0.0, *seen, statuses=_ready("a"))
    rounds.desired = (replace(deployment(2), options=EngineOptions(engine="simulated", max_num_seqs=2)),)

    first = rounds.play(0.5, *seen, statuses=_ready("a"))
    seen = (_seen("a"), _seen("c", place="tiny-1a2b-1", placed=False))
    soon = rounds.play(1.0, *seen, statuses=_ready("a"))
    later = rounds.play(40.0, *seen, statuses=_ready("a"))

    assert [action.incarnation for action in first if isinstance(action, Stop)] == ["b"]
    assert soon == ()
    assert [action.incarnation for action in later if isinstance(action, Stop)] == ["a"]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_happens_the_fleet_becomes_what_is_wanted(data: st.DataObject) -> None:
    fleet, history, now_s = PretendedFleet(), FleetHistory(), 0.0
    wanted = deployment(0)

    def play_round(*, lose: bool) -> None:
        nonlocal history, now_s
        now_s += 0.5
        fleet.tick()
        seen = FleetRound(
            desired=(wanted,),
            observed=fleet.observed(),
            statuses=fleet.statuses(),
            now_s=now_s,
        )
        result = reconcile(seen, history, LIMITS)
        history = result.history
        for action in result.actions:
            if not lose or data.draw(st.booleans()):
                fleet.act(action)

    for _ in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(["scale", "redeploy", "die", "hang", "restart", "rest"]))
        living = sorted(incarnation for incarnation, replica in fleet.replicas.items() if replica.alive)
        if what == "scale":
            wanted = replace(wanted, num_replicas=data.draw(st.integers(0, 4)))
        elif what == "redeploy":
            options = replace(wanted.options, max_num_seqs=data.draw(st.integers(1, 3)))
            wanted = replace(wanted, options=options)
        elif what == "restart":
            history = FleetHistory()
        elif what in ("die", "hang") and living:
            replica = fleet.replicas[data.draw(st.sampled_from(living))]
            replica.hangs = replica.hangs or what == "hang"
            if what == "die":
                replica.die()
        play_round(lose=True)
    for _ in range(600):  # five minutes without faults: longer than any limit or pause that matters here
        play_round(lose=False)

    assert sorted(replica.place for replica in fleet.replicas.values()) == [
        f"tiny-1a2b-{i}" for i in range(wanted.num_replicas)
    ]
    for replica in fleet.replicas.values():
        assert replica.hangs or (replica.state, replica.settings) == (ReplicaState.READY, wanted.settings)
    calm = fleet.num_started
    play_round(lose=False)
    assert fleet.num_started == calm
