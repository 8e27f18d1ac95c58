"""Everything that a router's process needs to know at birth, in one frozen record that travels as JSON."""

import ipaddress
from dataclasses import dataclass, field

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """One router process. Checked at birth."""

    host: str = "127.0.0.1"
    port: int = 50051  # 0: any free one; it is told on standard output
    redis_url: str
    prefix: str = "shardline"
    terms: QueueTerms
    reuse_port: bool = False  # several routers share the port
    allow_unauthenticated: bool = False  # serve more than this machine without asking anybody who he is
    cache_folder: str  # of downloaded models and digests
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port}, but must be 1 … 65535, or 0 for any free one")
        if not self.allow_unauthenticated and not is_loopback(self.host):
            raise ConfigurationError(
                f"host is {self.host!r}, which other machines can reach, and there are no keys yet: everybody there "
                "could use the models and read what others asked. Listen on 127.0.0.1, or say --allow-unauthenticated "
                "where the network itself keeps strangers out"
            )

    @property
    def address(self) -> str:
        """Where to listen, as gRPC writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
