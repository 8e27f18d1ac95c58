"""What passes between `ray_controller_process` and whoever starts it. Imports no Ray."""

from dataclasses import dataclass

from shardline_cluster.controller.controller_config import ControllerConfig

RAY_CONFIG_VARIABLE = "SHARDLINE_RAY_CONTROLLER_CONFIG"
HEAD_DOES_NOT_ANSWER = 75  # exit code; EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True, slots=True, kw_only=True)
class RayControllerConfig:
    """Which cluster to join, and as what."""

    controller: ControllerConfig
    address: str  # of Ray's head
    namespace: str  # of all actors of one Shardline
    node_ip: str | None = None  # join by the raylet at this address; None: by any on this machine
    drain_at_exit_s: float | None = None  # how long replicas may drain when the process is told to end; None: they stay
