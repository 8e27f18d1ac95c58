"""Lanes are told once, with and without replicas; what nobody has looked at lately is not told at all."""

from dataclasses import replace

from prometheus_client import CollectorRegistry

from shardline_cluster.controller.fleet_history import FleetHistory, ReplicaLife
from shardline_cluster.controller.fleet_metrics import STALE_S, FleetMetrics, new_crashes
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.queue.answers import LaneView, LeaderView
from tests.cluster.controller.fleets import deployment, status
from tests.cluster.telemetry.readings import Readings, readings

LANE = "tiny-1a2b"
VIEW = LaneView(
    waiting_requests=3,
    waiting_tokens=700,
    running_requests=2,
    handed_back_requests=1,
    oldest_wait_ms=2_500,
    hold_ends_ms=None,
    now_ms=10_000,
    leaders=(LeaderView("a", 10_001, 2, "", to_json(status(ReplicaState.READY))),),
    num_routers=2,
)


class _Told:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.registry = CollectorRegistry()
        self.metrics = FleetMetrics(self.registry, clock=lambda: self.now_s)

    def now(self) -> Readings:
        return readings(self.registry)

    def value(self, name: str, model: str = "tiny") -> float | None:
        return self.now().value(f"shardline_{name}", lane=LANE, model_name=model)


def test_a_lane_is_told_as_the_last_round_saw_it() -> None:
    told = _Told()

    told.metrics.saw([deployment(2)], {LANE: VIEW})

    assert told.value("num_requests_waiting") == 4
    assert told.value("num_requests_running") == 2
    assert told.value("oldest_wait_seconds") == 2.5
    assert told.value("backlog_tokens") == 700
    assert told.value("lane_routers") == 2
    assert told.value("desired_replicas") == 2
    assert told.value("ready_replicas") == 1


def test_a_lane_without_replicas_has_every_gauge_too() -> None:
    told = _Told()

    told.metrics.saw([deployment(0)], {LANE: replace(VIEW, leaders=())})

    assert told.value("num_requests_waiting") == 4
    assert told.value("desired_replicas") == told.value("ready_replicas") == 0
    assert told.value("replica_crashes_total") == told.value("replica_starts_total") == told.value("holds_total") == 0


def test_two_names_of_the_same_weights_share_one_lane_which_is_told_once() -> None:
    told = _Told()

    told.metrics.saw([replace(deployment(1), name="other"), deployment(1)], {LANE: VIEW})

    assert told.now().value("shardline_num_requests_waiting", lane=LANE) == 4
    assert told.value("num_requests_waiting", "other,tiny") == 4
    assert told.value("desired_replicas", "other") == 1


def test_a_lane_that_is_gone_is_told_no_more() -> None:
    told = _Told()
    told.metrics.saw([deployment(1)], {LANE: VIEW})

    told.metrics.saw([], {})

    assert told.value("num_requests_waiting") is None
    assert told.value("desired_replicas") is None


def test_gauges_of_a_controller_that_sees_nothing_go_away_instead_of_lying() -> None:
    told = _Told()
    told.metrics.saw([deployment(1)], {LANE: VIEW})

    told.now_s += STALE_S + 1

    assert told.value("num_requests_waiting") is None
    assert told.value("holds_total") == 0


def test_each_hold_counts_once_however_often_it_is_seen() -> None:
    told = _Told()
    in_hold = replace(VIEW, hold_ends_ms=12_000)

    for view in (VIEW, in_hold, in_hold, VIEW, replace(VIEW, hold_ends_ms=20_000)):
        told.metrics.saw([deployment(1)], {LANE: view})

    assert told.value("holds_total") == 2
    assert told.value("lane_in_hold") == 1


def test_the_controller_is_well_after_a_good_round_for_a_while() -> None:
    told = _Told()
    before = told.metrics.health()
    told.metrics.round_ended("", 0.1)
    good = told.metrics.health()
    told.metrics.round_ended("Redis does not answer", 0.1)
    bad = told.metrics.health()
    told.metrics.round_ended("", 0.1)
    told.now_s += STALE_S + 1

    assert [before.status, good.status, bad.status, told.metrics.health().status] == [503, 200, 503, 503]
    assert bad.failing == "Redis does not answer"
    assert told.now().value("shardline_controller_rounds_total", outcome="ok") == 2
    assert told.now().value("shardline_controller_rounds_total", outcome="failed") == 1


def _life(state: ReplicaState, *, alive: bool = True) -> ReplicaLife:
    return ReplicaLife(place=f"{LANE}-0", state=state, since_s=0.0, alive=alive)


def test_a_crash_is_counted_in_the_round_that_first_sees_it() -> None:
    ready, dead = _life(ReplicaState.READY), _life(ReplicaState.FAILED, alive=False)
    drained = _life(ReplicaState.STOPPED, alive=False)
    before = FleetHistory(lives={"a": ready, "b": dead, "c": ready})
    after = FleetHistory(lives={"a": dead, "b": dead, "c": drained, "d": dead})

    assert new_crashes(before, after) == (LANE, LANE)
