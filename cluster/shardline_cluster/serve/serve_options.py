"""What a user asks of `shardline serve`, checked."""

import importlib.util
import sys
from dataclasses import dataclass, field
from enum import Enum

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.loopback import is_loopback
from shardline_cluster.controller.gang_planning import ReplanTimes
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import MOST_REPLICAS, EngineOptions
from shardline_cluster.fleet.deployment_plan import WantedModel
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.tls_files import TlsFiles
from shardline_cluster.serve.ports import is_own_address
from shardline_cluster.serve.ray_plan import HEAD_IP, NODE_IP
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig


class LauncherKind(Enum):
    """Who starts replicas."""

    RAY = "ray"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """All of it, apart from where Redis keeps what."""

    model: str
    served_model_name: str
    launcher: LauncherKind
    host: str = "127.0.0.1"
    grpc_port: int = 50051
    num_routers: int = 1
    num_replicas: int = 1
    engine: EngineOptions = field(default_factory=EngineOptions)
    redis_url: str | None = field(default=None, repr=False)  # None: an embedded server
    redis_prefix: str = DEFAULT_PREFIX
    ray_address: str | None = None  # None: a Ray cluster of its own
    ray_node_ip: str | None = None  # by which node to join that cluster; None: by any on this machine
    replan: ReplanTimes = field(default_factory=ReplanTimes)
    durability: Durability = Durability.RELAXED
    terms: QueueTerms = field(default_factory=QueueTerms)
    name: str = "default"
    access: AccessRules = field(default_factory=AccessRules)
    tls: TlsFiles | None = None  # of the routers; None: plain text
    cache_folder: str  # of downloaded models and digests
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)  # the port is the controller's
    offline: bool = False  # take the model from the cache or refuse

    def __post_init__(self) -> None:
        self.access.check_host(self.host)
        if not 1 <= self.num_routers <= 64:
            raise ConfigurationError(f"--routers is {self.num_routers}, but must be 1 to 64")
        if not 0 <= self.num_replicas <= MOST_REPLICAS:
            raise ConfigurationError(f"--replicas is {self.num_replicas}, but must be 0 to {MOST_REPLICAS}")
        if self.ray_address is not None and self.launcher is LauncherKind.LOCAL:
            raise ConfigurationError(
                "--ray-address joins a Ray cluster, but --launcher local starts plain processes: leave one of them out"
            )
        if self.ray_node_ip is not None and self.ray_address is None:
            raise ConfigurationError("--ray-node-ip names a node of the cluster at --ray-address: give both, or none")
        if self.launcher is LauncherKind.LOCAL and self.engine.rank_resource:
            raise ConfigurationError(
                f"--rank-resource {self.engine.rank_resource} is Ray's, but --launcher local starts plain processes: "
                "leave one of them out"
            )
        if self.ray_address is not None:
            _check_ray_address(self.ray_address, has_redis_url=self.redis_url is not None)

    @property
    def wanted_model(self) -> WantedModel:
        """The deployment that is asked for."""
        return WantedModel(
            model=self.model,
            name=self.served_model_name,
            num_replicas=self.num_replicas,
            engine=self.engine,
            cluster=self.name,
            offline=self.offline,
        )


def _check_ray_address(address: str, *, has_redis_url: bool) -> None:
    """Refuses what would only fail later, on another machine."""
    if address.startswith("ray://"):
        raise ConfigurationError(
            f"--ray-address is {address}, but Ray's client protocol does not do: give HOST:PORT of the head, from a "
            "machine that is a node of that cluster"
        )
    host = address.rpartition(":")[0] or address
    if not has_redis_url and host != "auto" and not is_loopback(host):
        raise ConfigurationError(
            f"--ray-address {address} may place replicas on other machines, which an embedded Redis cannot serve: "
            "give a --redis-url that all of them reach"
        )


def choose_launcher(asked: str | None, *, ray_address: str | None) -> tuple[LauncherKind, str]:
    """Who starts replicas, and a line that says so where it is not what one would expect.

    Raises:
        ConfigurationError: Ray was asked for and is not here.
    """
    if asked == LauncherKind.LOCAL.value:
        return LauncherKind.LOCAL, ""
    missing = _why_no_ray(ray_address)
    if not missing:
        return LauncherKind.RAY, ""
    if asked is not None or ray_address is not None:
        raise ConfigurationError(f"Ray cannot start replicas here: {missing}")
    return LauncherKind.LOCAL, f"replicas run as plain processes: {missing}"


def _why_no_ray(ray_address: str | None) -> str:
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed (pip install 'shardline[ray]' brings it)"
    if sys.platform != "linux" and ray_address is None:
        return "a Ray cluster on one machine needs Linux; --ray-address joins one elsewhere"
    missing = [host for host in (HEAD_IP, NODE_IP) if not is_own_address(host)] if ray_address is None else []
    if missing:
        return (
            f"this machine does not have the loopback address {missing[0]}; --ray-address joins a Ray cluster elsewhere"
        )
    return ""
