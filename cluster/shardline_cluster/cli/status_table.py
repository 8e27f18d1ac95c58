"""A cluster's status as text for a terminal. Pure: rows in, text out."""

from collections.abc import Sequence

from shardline_cluster.cli.short_source import short_source
from shardline_cluster.cli.text_table import table
from shardline_cluster.fleet.cluster_status import ClusterStatus, DeploymentRow, LaneRow, ReplicaRow

_NOTHING = "No model is deployed.\n"


def render(status: ClusterStatus) -> str:
    """Tables of the deployments and of their replicas, and a word on every lane on hold."""
    if not status.deployments:
        return _NOTHING
    parts = [_deployment_table(status.deployments), _replica_table(status.deployments)]
    parts.extend(_hold_note(deployment.lane) for deployment in status.deployments)
    return "\n".join(part for part in parts if part)


def _deployment_table(deployments: Sequence[DeploymentRow]) -> str:
    header = ("MODEL", "SOURCE", "CLUSTER", "READY", "WAITING", "RUNNING", "OLDEST WAIT", "ROUTERS")
    return table(header, [_deployment_cells(deployment) for deployment in deployments])


def _deployment_cells(deployment: DeploymentRow) -> tuple[str, ...]:
    lane = deployment.lane
    return (
        f"{deployment.name} (former weights)" if deployment.is_former else deployment.name,
        short_source(deployment.model),
        deployment.cluster,
        f"{deployment.ready_replicas}/{deployment.desired_replicas}",
        str(lane.waiting_requests),
        str(lane.running_requests),
        duration(lane.oldest_wait_s) if lane.waiting_requests else "-",
        str(lane.num_routers),
    )


def _replica_table(deployments: Sequence[DeploymentRow]) -> str:
    rows = [_replica_cells(replica, deployment.name) for deployment in deployments for replica in deployment.replicas]
    if not rows:
        return ""
    header = ("REPLICA", "MODEL", "STATE", "SHAPE", "REQUESTS", "LEASE", "WEIGHTS", "KV CACHE", "HOST:PID", "REASON")
    return table(header, rows)


def _replica_cells(replica: ReplicaRow, model: str) -> tuple[str, ...]:
    return (
        replica.replica,
        model,
        replica.state,
        replica.shape or "-",
        str(replica.num_requests),
        _lease(replica.lease_left_s),
        _size(replica.weights_bytes),
        _size(replica.kv_cache_bytes),
        f"{replica.host}:{replica.pid}" if replica.pid else "-",
        _reason(replica),
    )


def _reason(replica: ReplicaRow) -> str:
    if not replica.failures:
        return replica.reason
    wait = f"; next try in {replica.next_start_s:.0f} s" if replica.next_start_s is not None else ""
    return f"{replica.reason} (failed {replica.failures} times in a row{wait})"


def _size(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / (1 << 20):.0f} MiB"


def _lease(left_s: float | None) -> str:
    if left_s is None:
        return "-"
    return f"{duration(left_s)} left" if left_s >= 0 else "over"


def _hold_note(lane: LaneRow) -> str:
    if lane.hold_left_s is None:
        return ""
    return (
        f"Lane {lane.lane} is on hold for {duration(lane.hold_left_s)} more: Redis was started or changed, "
        f"and everybody tells it what it may have forgotten.\n"
    )


def duration(seconds: float) -> str:
    """A span of time in two units at most: 0.4 s, 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
