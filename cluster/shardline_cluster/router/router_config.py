"""Everything that a router's process needs to know at birth, in one frozen record that travels as JSON."""

from dataclasses import dataclass, field

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import DEFAULT_CLUSTER, check_cluster_name
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.tls_files import TlsFiles
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """One router process. Checked at birth."""

    host: str = "127.0.0.1"
    port: int = 50051  # 0: any free one; it is told on standard output
    redis_url: str = field(repr=False)  # may hold a password
    prefix: str = DEFAULT_PREFIX
    terms: QueueTerms
    reuse_port: bool = False  # several routers share the port
    access: AccessRules = field(default_factory=AccessRules)
    tls: TlsFiles | None = None  # None: plain text
    local_socket: str = ""  # also listens on this Unix socket, in plain text: for its own user on this machine
    cache_folder: str  # of downloaded models and digests
    cluster: str = DEFAULT_CLUSTER  # in which its Admin service makes new deployments
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    def __post_init__(self) -> None:
        check_cluster_name(self.cluster)
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port}, but must be 1 … 65535, or 0 for any free one")
        self.access.check_host(self.host)

    @property
    def address(self) -> str:
        """Where to listen, as gRPC writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
