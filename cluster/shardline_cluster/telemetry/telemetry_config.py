"""How a process tells of itself, in one frozen record that travels with its configuration as JSON."""

import socket
from dataclasses import dataclass
from enum import Enum

from shardline_cluster.errors import ConfigurationError


class LogFormat(Enum):
    """What a line of a log looks like."""

    HUMAN = "human"
    JSON = "json"


class LogLevel(Enum):
    """The least grave lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """One process's metrics and logs. Traces follow the standard OTEL_* variables of its environment."""

    metrics_host: str = "127.0.0.1"  # where its metrics can be had
    metrics_port: int = 0  # 0: any free one
    log_format: LogFormat = LogFormat.HUMAN
    log_level: LogLevel = LogLevel.INFO

    def __post_init__(self) -> None:
        if not 0 <= self.metrics_port <= 65_535:
            raise ConfigurationError(
                f"the port for metrics is {self.metrics_port}, but must be 1 to 65535, or 0 for any free one"
            )
        if not self.metrics_host:
            raise ConfigurationError("the host for metrics is empty: name an address of this machine, as 127.0.0.1")

    @property
    def told_host(self) -> str:
        """Where others find what listens on `metrics_host`: one that means every address is told by name."""
        return socket.gethostname() if self.metrics_host in ("0.0.0.0", "::") else self.metrics_host
