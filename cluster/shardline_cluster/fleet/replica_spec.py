"""Everything that a replica's process needs to know at birth, in one frozen record that travels as JSON."""

from dataclasses import dataclass, field

from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """One replica to start. `incarnation` is drawn by the controller, so that it can tell whose process exited."""

    deployment: Deployment
    replica: str
    incarnation: str
    redis_url: str = field(repr=False)  # may hold a password
    prefix: str
    terms: QueueTerms
    gang: Gang = field(default_factory=Gang)
    replicas_on_host: int = 1  # threads are divided by it
    memory_sharers: int = 1  # replicas that are still to share the memory, this one too
    memory_taken_bytes: int = 0  # by replicas that are there already
    step_limit_s: float = 5.0  # the least time limit of a step; it is at least 20 × the expected time
    warm_up_limit_s: float = 300.0
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
