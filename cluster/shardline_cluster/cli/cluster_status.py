"""What `shardline status` knows of a cluster: read from the queue, put into rows. Prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_store import DeploymentStore
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.records import LaneView, LeaderView
from shardline_cluster.queue.request_queue import RequestQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRow:
    """One replica that holds a lease."""

    replica: str
    state: str  # a name of fleet.ReplicaState, or UNKNOWN where the replica is of another version
    num_requests: int
    lease_left_s: float  # negative: it is late
    host: str = ""
    pid: int = 0
    reason: str = ""
    incarnation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRow:
    """One lane at one instant."""

    lane: str
    waiting_requests: int
    waiting_tokens: int
    running_requests: int
    handed_back_requests: int  # of the waiting: those that have tokens already
    oldest_wait_s: float
    hold_left_s: float | None  # None: no hold
    num_routers: int
    replicas: tuple[ReplicaRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRow:
    """One deployed model."""

    name: str
    model: str
    desired_replicas: int
    lane: LaneRow

    @property
    def ready_replicas(self) -> int:
        """Replicas that take requests now."""
        return sum(replica.state == ReplicaState.READY.value for replica in self.lane.replicas)


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Every deployment, by name."""

    deployments: tuple[DeploymentRow, ...]


async def observe(store: DeploymentStore, open_lane: Callable[[str], RequestQueue]) -> ClusterStatus:
    """Reads the whole cluster once; `open_lane` connects to the lane of a name.

    Raises:
        QueueUnavailableError: the queue does not answer.
    """
    deployments = await store.all()
    return ClusterStatus(tuple([await _observe_one(deployments[name], open_lane) for name in sorted(deployments)]))


async def _observe_one(deployment: Deployment, open_lane: Callable[[str], RequestQueue]) -> DeploymentRow:
    queue = open_lane(deployment.lane)
    try:
        view = (await queue.view()).value
    finally:
        await queue.close()
    return DeploymentRow(
        name=deployment.name,
        model=deployment.model,
        desired_replicas=deployment.num_replicas,
        lane=lane_row(deployment.lane, view),
    )


def lane_row(lane: str, view: LaneView) -> LaneRow:
    """A lane's view in seconds from now instead of instants."""
    hold_left_s = None if view.hold_ends_ms is None else max(0, view.hold_ends_ms - view.now_ms) / 1000
    replicas = sorted((_replica_row(leader, view.now_ms) for leader in view.leaders), key=lambda row: row.replica)
    return LaneRow(
        lane=lane,
        waiting_requests=view.waiting_requests,
        waiting_tokens=view.waiting_tokens,
        running_requests=view.running_requests,
        handed_back_requests=view.handed_back_requests,
        oldest_wait_s=view.oldest_wait_ms / 1000,
        hold_left_s=hold_left_s or None,
        num_routers=view.num_routers,
        replicas=tuple(replicas),
    )


def _replica_row(leader: LeaderView, now_ms: int) -> ReplicaRow:
    status = _status_of(leader)
    return ReplicaRow(
        replica=status.replica if status else leader.incarnation,
        state=status.state.value if status else "UNKNOWN",
        num_requests=leader.num_held,
        lease_left_s=(leader.lease_ends_ms - now_ms) / 1000,
        host=status.host if status else "",
        pid=status.pid if status else 0,
        reason=status.reason if status else "",
        incarnation=leader.incarnation,
    )


def _status_of(leader: LeaderView) -> ReplicaStatus | None:
    """What the replica says of itself; one of another version may say it in other words."""
    try:
        return from_json(ReplicaStatus, leader.status)
    except ConfigurationError:
        return None
