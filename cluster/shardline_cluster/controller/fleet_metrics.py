"""What the controller tells of lanes and replicas: once for the whole cluster, and also where no replica runs.

Each gauge stands for the last round that saw everything. After `STALE_S` without one they are left out: a number that
nobody has looked at is worse than none.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from shardline_cluster.controller.fleet_history import FleetHistory
from shardline_cluster.controller.replica_place import ReplicaPlace
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.ready_leaders import ready_leaders
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.queue.answers import LaneView
from shardline_cluster.telemetry.instruments import PREFIX, Instruments
from shardline_cluster.telemetry.metrics_server import Health

STALE_S = 15.0
ROUND_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LANE_LABELS = ("model_name", "lane")


@dataclass(frozen=True, slots=True)
class LaneGauge:
    """A gauge of one lane."""

    name: str
    documentation: str
    value: Callable[[LaneView], float]


LANE_GAUGES = (
    LaneGauge(
        "num_requests_waiting",
        "Requests that wait in the lane, those that were handed back included.",
        lambda view: view.waiting_requests + view.handed_back_requests,
    ),
    LaneGauge("num_requests_running", "Requests that some replica holds.", lambda view: view.running_requests),
    LaneGauge(
        "oldest_wait_seconds",
        "Age of the oldest request that waits; 0 where none does.",
        lambda view: view.oldest_wait_ms / 1000,
    ),
    LaneGauge(
        "backlog_tokens",
        "Tokens that waiting requests may need: prompts and the longest outputs that they ask for.",
        lambda view: view.waiting_tokens,
    ),
    LaneGauge(
        "lane_in_hold", "Whether the lane is in a hold: 1 or 0.", lambda view: float(view.hold_ends_ms is not None)
    ),
    LaneGauge("lane_routers", "Routers that hold a lease in the lane.", lambda view: view.num_routers),
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the last good round saw."""

    at_s: float
    desired: tuple[Deployment, ...]
    views: Mapping[str, LaneView]  # by lane


class FleetMetrics:
    """All of them, in one registry; also what the controller's health is judged by."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: _Seen | None = None
        self._trouble = "no round has been made yet"
        self._round_s = clock()
        self._holds_known: dict[str, int] = {}  # lane → when the last known hold ends
        make = Instruments(registry)
        self._holds = make.counter("holds", "Holds of the lane that the controller saw begin.", *LANE_LABELS)
        self._starts = make.counter("replica_starts", "Replicas that were started.", *LANE_LABELS)
        self._crashes = make.counter("replica_crashes", "Replicas that ended without having drained.", *LANE_LABELS)
        self._rounds = make.counter("controller_rounds", "Rounds of the controller.", "outcome")
        self._round_time = make.histogram(
            "controller_round_seconds", "Time of a round that saw everything.", bounds=ROUND_BOUNDS
        )
        for outcome in ("ok", "failed"):
            self._rounds.labels(outcome)
        registry.register(self)

    # --- what the controller tells -------------------------------------------------------------------------------

    def saw(self, desired: Sequence[Deployment], views: Mapping[str, LaneView]) -> None:
        """A round has seen these deployments and lanes."""
        self._seen = _Seen(self._clock(), tuple(desired), dict(views))
        for lane, view in views.items():
            labels = (_model(lane, desired), lane)
            for counter in (self._holds, self._starts, self._crashes):
                counter.labels(*labels)
            if view.hold_ends_ms is not None and view.hold_ends_ms != self._holds_known.get(lane):
                self._holds.labels(*labels).inc()
                self._holds_known[lane] = view.hold_ends_ms

    def started(self, deployment: Deployment) -> None:
        """A replica was started."""
        self._starts.labels(deployment.name, deployment.lane).inc()

    def crashed(self, lanes: Iterable[str], desired: Sequence[Deployment]) -> None:
        """Replicas of these lanes ended without having drained."""
        for lane in lanes:
            self._crashes.labels(_model(lane, desired), lane).inc()

    def round_ended(self, trouble: str, took_s: float) -> None:
        """A round is over; `trouble`: why it could not see everything."""
        self._trouble, self._round_s = trouble, self._clock()
        self._rounds.labels("failed" if trouble else "ok").inc()
        if not trouble:
            self._round_time.observe(took_s)

    # --- what others ask, in other threads -----------------------------------------------------------------------

    def health(self) -> Health:
        """Whether the last round was a good one, and lately."""
        silent_s = self._clock() - self._round_s
        if silent_s > STALE_S:
            return Health(f"the last round ended {silent_s:.0f} s ago")
        return Health(self._trouble)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        seen = self._seen
        if seen is None or self._clock() - seen.at_s > STALE_S:
            return self.describe()
        return (*self._lane_families(seen), *self._deployment_families(seen))

    def describe(self) -> Iterable[Metric]:
        """For the registry: names without values."""
        nothing = _Seen(0.0, (), {})
        return (*self._lane_families(nothing), *self._deployment_families(nothing))

    def _lane_families(self, seen: _Seen) -> Iterable[Metric]:
        for gauge in LANE_GAUGES:
            family = GaugeMetricFamily(PREFIX + gauge.name, gauge.documentation, labels=LANE_LABELS)
            for lane, view in seen.views.items():
                family.add_metric((_model(lane, seen.desired), lane), gauge.value(view))
            yield family

    def _deployment_families(self, seen: _Seen) -> Iterable[Metric]:
        desired = GaugeMetricFamily(PREFIX + "desired_replicas", "Replicas that are wanted.", labels=LANE_LABELS)
        ready = GaugeMetricFamily(
            PREFIX + "ready_replicas", "Replicas that are READY and hold a lease: they serve.", labels=LANE_LABELS
        )
        for deployment in seen.desired:
            labels = (deployment.name, deployment.lane)
            view = seen.views.get(deployment.lane)
            desired.add_metric(labels, deployment.num_replicas)
            ready.add_metric(labels, 0 if view is None else sum(1 for _ in ready_leaders(view, deployment.name)))
        return (desired, ready)


def new_crashes(before: FleetHistory, after: FleetHistory) -> tuple[str, ...]:
    """Lanes of the replicas that were seen to have crashed in this round. Pure."""
    return tuple(
        ReplicaPlace.of(life.place).lane
        for incarnation, life in after.lives.items()
        if not life.alive
        and life.state is ReplicaState.FAILED
        and (incarnation not in before.lives or before.lives[incarnation].alive)
    )


def _model(lane: str, desired: Iterable[Deployment]) -> str:
    """The names under which a lane's weights are deployed: mostly one."""
    return ",".join(deployment.name for deployment in desired if deployment.lane == lane)
