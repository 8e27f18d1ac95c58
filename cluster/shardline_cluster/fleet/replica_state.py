"""The life of a replica, as its own process tells it and as the controller sees it."""

from dataclasses import dataclass, field
from enum import Enum

from shardline_cluster.fleet.gang import Gang


class ReplicaState(Enum):
    """PENDING → STARTING → LOADING → WARMING → READY → DRAINING → STOPPED; from anywhere → FAILED."""

    PENDING = "PENDING"  # wanted, not placed
    STARTING = "STARTING"  # placed, the process has not spoken yet
    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What a replica says of itself with each registration; lies in Redis as JSON."""

    deployment: str
    replica: str  # name of the place it fills, such as `smollm2-0`
    state: ReplicaState
    settings: str = ""  # of the deployment as it was built; see Deployment.settings
    reason: str = ""  # why it FAILED
    pid: int = 0
    host: str = ""
    started_at: float = 0.0  # seconds since 1970
    details: dict[str, str] = field(default_factory=dict)  # of the engine
    gang: Gang | None = None  # its ranks
    load_s: dict[str, float] = field(default_factory=dict)  # seconds of each phase of loading, in order
