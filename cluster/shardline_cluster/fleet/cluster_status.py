"""What runs and what waits, for people: read from records, lanes and reports, and put into rows. Prints nothing."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import DeploymentRecords
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReportStore, PlaceReport, report_on_lane
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.answers import LaneView, LeaderView
from shardline_cluster.queue.request_queue import RequestQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRow:
    """One replica: with a lease, it speaks for itself; without one, the controller speaks for it."""

    replica: str
    state: str  # a name of fleet.ReplicaState, or UNKNOWN where the replica is of another version
    num_requests: int = 0
    lease_left_s: float | None = None  # negative: it is late; None: it has none
    host: str = ""
    pid: int = 0
    reason: str = ""
    failures: int = 0  # of its place, in a row
    next_start_s: float | None = None  # pause until the next try; None where nothing waits for one
    incarnation: str = ""
    is_outdated: bool = False  # built from settings that its deployment has left
    shape: str = ""  # how its model is dealt to ranks; empty: it has none, or does not tell
    weights_bytes: int | None = None  # None: it has not loaded yet, or its engine does not tell
    kv_cache_bytes: int | None = None
    load_s: Mapping[str, float] = field(default_factory=dict)  # seconds of each phase of its loading, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRow:
    """One lane at one instant."""

    lane: str
    waiting_requests: int  # without those that were handed back
    waiting_tokens: int
    running_requests: int
    handed_back_requests: int  # they wait, too, and have tokens already
    oldest_wait_s: float
    hold_left_s: float | None  # None: no hold
    num_routers: int

    @property
    def unfinished_requests(self) -> int:
        """Whatever has been accepted and has not ended."""
        return self.waiting_requests + self.handed_back_requests + self.running_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRow:
    """One deployed model, or one that still answers what was asked before other weights were deployed."""

    name: str
    cluster: str
    is_former: bool
    model: str
    desired_replicas: int
    lane: LaneRow
    replicas: tuple[ReplicaRow, ...]

    @property
    def ready_replicas(self) -> int:
        """Replicas that take requests now: READY, and believed; a dead controller's last report may name others."""
        return sum(
            replica.state == ReplicaState.READY.value and (replica.lease_left_s or 0) > 0 for replica in self.replicas
        )


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Every deployment, by name."""

    deployments: tuple[DeploymentRow, ...]


async def observe(
    records: DeploymentRecords, report_store: FleetReportStore, look: Callable[[str], Awaitable[LaneView]]
) -> ClusterStatus:
    """Reads the whole cluster once; `look` reads the lane of a name.

    Raises:
        QueueUnavailableError: the queue does not answer.
    """
    await records.refresh()
    reports = await report_store.all()
    rows = []
    for _, deployment in sorted(records.values.items()):
        for stage in deployment.over_time():
            view, report = await look(stage.lane), report_on_lane(reports, stage)
            if stage is deployment or report is not None or _has_work(view):
                rows.append(deployment_row(stage, view, report, is_former=stage is not deployment))
    return ClusterStatus(tuple(rows))


def looking_once(open_lane: Callable[[str], RequestQueue]) -> Callable[[str], Awaitable[LaneView]]:
    """Looks at lanes for `observe`, each over a connection that is closed again."""

    async def look(lane: str) -> LaneView:
        queue = open_lane(lane)
        try:
            return (await queue.view()).value
        finally:
            await queue.close()

    return look


def _has_work(view: LaneView) -> bool:
    return view.waiting_requests + view.handed_back_requests + view.running_requests > 0


def deployment_row(
    deployment: Deployment, view: LaneView, report: DeploymentReport | None, *, is_former: bool = False
) -> DeploymentRow:
    """What lane and controller say of one deployment. `report` is None where no controller has written one."""
    return DeploymentRow(
        name=deployment.name,
        cluster=deployment.cluster,
        is_former=is_former,
        model=deployment.model,
        desired_replicas=deployment.num_replicas,
        lane=_lane_row(deployment.lane, view),
        replicas=_replica_rows(deployment, view, report.places if report else ()),
    )


def _lane_row(lane: str, view: LaneView) -> LaneRow:
    """A lane's view in seconds from now instead of instants."""
    hold_left_s = None if view.hold_ends_ms is None else max(0, view.hold_ends_ms - view.now_ms) / 1000
    return LaneRow(
        lane=lane,
        waiting_requests=view.waiting_requests,
        waiting_tokens=view.waiting_tokens,
        running_requests=view.running_requests,
        handed_back_requests=view.handed_back_requests,
        oldest_wait_s=view.oldest_wait_ms / 1000,
        hold_left_s=hold_left_s or None,
        num_routers=view.num_routers,
    )


def _replica_rows(deployment: Deployment, view: LaneView, places: Sequence[PlaceReport]) -> tuple[ReplicaRow, ...]:
    """Replicas with a lease, and the places that none of them fills, by name."""
    present = [_replica_row(leader, view.now_ms, settings=deployment.settings) for leader in view.leaders]
    names, incarnations = {row.replica for row in present}, {row.incarnation for row in present}
    absent = [
        _place_row(place) for place in places if place.place not in names and place.incarnation not in incarnations
    ]
    return tuple(sorted((*present, *absent), key=lambda row: row.replica))


def _place_row(place: PlaceReport) -> ReplicaRow:
    """A place whose replica holds no lease: it is being started, or it died."""
    return ReplicaRow(
        replica=place.place,
        state=place.state.value,
        reason=place.reason,
        failures=place.failures,
        next_start_s=place.next_start_s,
        incarnation=place.incarnation,
        shape=place.shape,
    )


def _replica_row(leader: LeaderView, now_ms: int, *, settings: str) -> ReplicaRow:
    status = _status_of(leader)
    return ReplicaRow(
        replica=status.replica if status else leader.incarnation,
        state=status.state.value if status else "UNKNOWN",
        num_requests=leader.num_held,
        lease_left_s=(leader.lease_ends_ms - now_ms) / 1000,
        host=status.host if status else "",
        pid=status.pid if status else 0,
        reason=(status.reason or (status.gang.note if status.gang else "")) if status else "",
        incarnation=leader.incarnation,
        is_outdated=status is not None and status.settings not in ("", settings),
        shape=str(status.gang.plan) if status and status.gang else "",
        weights_bytes=_bytes(status, "weights_bytes"),
        kv_cache_bytes=_bytes(status, "kv_cache_bytes"),
        load_s=status.load_s if status else {},
    )


def _bytes(status: ReplicaStatus | None, detail: str) -> int | None:
    told = status.details.get(detail, "") if status else ""
    return int(told) if told.isdecimal() else None


def _status_of(leader: LeaderView) -> ReplicaStatus | None:
    """What the replica says of itself; one of another version may say it in other words."""
    try:
        return from_json(ReplicaStatus, leader.status)
    except ConfigurationError:
        return None
