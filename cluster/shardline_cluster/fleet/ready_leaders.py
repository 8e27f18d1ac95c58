"""Which of a lane's leaders serve a deployment right now. Pure."""

from collections.abc import Iterator

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.answers import LaneView, LeaderView


def ready_leaders(view: LaneView, deployment: str) -> Iterator[LeaderView]:
    """Leaders that said they are READY and whose lease, which only a leader that steps renews, has not run out."""
    for leader in view.leaders:
        if leader.lease_ends_ms > view.now_ms and _is_ready(leader, deployment):
            yield leader


def _is_ready(leader: LeaderView, deployment: str) -> bool:
    try:
        status = from_json(ReplicaStatus, leader.status)
    except ConfigurationError:
        return False  # it has said nothing of itself yet
    return status.deployment == deployment and status.state is ReplicaState.READY
