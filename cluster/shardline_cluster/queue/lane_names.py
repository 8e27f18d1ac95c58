"""Names of keys and channels in Redis.

All of a lane share the hash tag `{LANE}`, so that a lane lives in one slot of a Redis Cluster.
"""

from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.queue.request_ids import check_lane

DEFAULT_PREFIX = "shardline"


@dataclass(frozen=True, slots=True)
class LaneNames:
    """Names under one prefix. The scripts build those of requests and members from `lane_key` themselves."""

    prefix: str
    lane: str

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        check_lane(self.lane)

    @property
    def base(self) -> str:
        """What every key of the lane begins with."""
        return f"{self.prefix}:v1:{{{self.lane}}}:"

    @property
    def lane_key(self) -> str:
        """The lane's own hash: the first key of each script."""
        return f"{self.base}lane"

    def wake_channel(self, incarnation: str) -> str:
        """Where a leader is told that there may be work or mail."""
        return f"{self.base}wake:{incarnation}"

    def tokens_channel(self, incarnation: str) -> str:
        """Where a router reads the tokens to which it listens."""
        return f"{self.base}tokens:{incarnation}"


def deployments_key(prefix: str) -> str:
    """The hash of desired deployments by name: versioned records."""
    return f"{check_prefix(prefix)}:v1:deployments"


def keys_key(prefix: str) -> str:
    """The hash of API keys by id: versioned records."""
    return f"{check_prefix(prefix)}:v1:keys"


def limit_key(prefix: str, key_id: str) -> str:
    """The hash of what an API key owes of its limits. In a slot of its own: limits hold over all lanes."""
    return f"{check_prefix(prefix)}:v1:{{limit:{key_id}}}"


def fleet_reports_key(prefix: str) -> str:
    """The hash of the controllers' reports by cluster."""
    return f"{check_prefix(prefix)}:v1:fleet_reports"


def controller_lease_key(prefix: str, cluster: str) -> str:
    """The lease of the controller of one cluster."""
    return f"{check_prefix(prefix)}:v1:controller:{cluster}"


def check_prefix(prefix: str) -> str:
    """Returns a prefix if it is a good one.

    Raises:
        ConfigurationError: it is empty, or would break the hash tag.
    """
    if not prefix or not prefix.isascii() or any(c in "{}" or c.isspace() for c in prefix):
        raise ConfigurationError(
            f"the prefix of keys in Redis is {prefix!r}, but must be of ASCII characters without spaces and braces, "
            "such as `shardline`"
        )
    return prefix
