"""What a controller needs to know at birth, in one frozen record that travels as JSON."""

from dataclasses import dataclass, field

from shardline_cluster.controller.gang_planning import ReplanTimes
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import DEFAULT_CLUSTER, check_cluster_name
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """Which Redis, which cluster's deployments, and how often to look."""

    redis_url: str = field(repr=False)  # may hold a password
    prefix: str = DEFAULT_PREFIX
    terms: QueueTerms = field(default_factory=QueueTerms)
    cluster: str = DEFAULT_CLUSTER  # it keeps the replicas of this cluster's deployments
    period_s: float = 0.5  # pause between two rounds
    call_deadline_s: float = 10.0  # of each call to the launcher
    replan: ReplanTimes = field(default_factory=ReplanTimes)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)  # its own; replicas take any free port

    def __post_init__(self) -> None:
        check_cluster_name(self.cluster)
        if not 0 < self.period_s <= 10:
            raise ConfigurationError(f"period_s must lie above 0 and up to 10 s, but is {self.period_s:g}")
