"""The commands of all processes that `serve` starts. Pure: says how, starts nothing."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.controller_process import CONFIG_VARIABLE as CONTROLLER_VARIABLE
from shardline_cluster.controller.controller_process import LocalControllerConfig
from shardline_cluster.controller.ray_controller_config import (
    HEAD_DOES_NOT_ANSWER,
    RAY_CONFIG_VARIABLE,
    RayControllerConfig,
)
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.processes import process_tree
from shardline_cluster.processes.child_process import describe_exit
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.serve.child_environment import child_environment
from shardline_cluster.serve.ray_plan import RayPlan
from shardline_cluster.serve.supervised_child import ChildPlan

ROUTER_VARIABLE = "SHARDLINE_ROUTER_CONFIG"

# How long each kind may take to end. With Redis, their sum bounds a stop of everything to 15 s; mostly it takes 3 s.
ROUTER_GRACE_S = 2.0
DRAIN_S = 6.0  # of the replicas: to the next token boundary, and one call to hand everything back
CONTROLLER_GRACE_S = DRAIN_S + 2.0
RAY_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Makes the plans of children whose output goes to `logs`."""

    logs: Path

    def routers(self, config: RouterConfig, number: int) -> list[ChildPlan]:
        """So many routers on one port; each has a local socket of its own, where `config` names one."""
        names = ["router"] if number == 1 else [f"router {index}" for index in range(number)]
        sockets = local_sockets(config.local_socket, number)
        configs = [replace(config, local_socket=socket) for socket in sockets]
        return [self._router(name, one) for name, one in zip(names, configs, strict=True)]

    def _router(self, name: str, config: RouterConfig) -> ChildPlan:
        environment = {ROUTER_VARIABLE: to_json(config)}
        return self._module(name, "router.router_process", environment, ROUTER_GRACE_S)

    def local_controller(self, config: ControllerConfig, *, folder: Path, owner_pid: int) -> ChildPlan:
        """The controller over plain processes."""
        local = LocalControllerConfig(
            controller=config, folder=str(folder), owner_pid=owner_pid, drain_at_exit_s=DRAIN_S
        )
        environment = {CONTROLLER_VARIABLE: to_json(local)}
        return self._module("controller", "controller.controller_process", environment, CONTROLLER_GRACE_S)

    def ray_controller(
        self, config: RayControllerConfig, ray_environment: Mapping[str, str], *, on_exit: Callable[[int], None]
    ) -> ChildPlan:
        """The process that keeps the controller's actor."""
        environment = {**ray_environment, RAY_CONFIG_VARIABLE: to_json(config)}
        plan = self._module("controller", "controller.ray_controller_process", environment, CONTROLLER_GRACE_S)
        return replace(plan, explain=_explain_keeper, on_exit=on_exit)

    def ray_head(self, plan: RayPlan) -> ChildPlan:
        """Ray's head, and all that it starts."""
        head = self._tree("Ray head", plan.head_command(), plan.head_environment())
        return replace(head, before_start=plan.forget_last_start)

    def ray_node(self, plan: RayPlan) -> ChildPlan:
        """Ray's node, and all that it starts: the actors too."""
        return self._tree("Ray node", plan.node_command(), plan.environment())

    def _module(self, name: str, module: str, environment: Mapping[str, str], grace_s: float) -> ChildPlan:
        command = (
            sys.executable,
            "-P",
            "-m",
            f"shardline_cluster.{module}",
        )  # -P: no module from the working directory
        return self._plan(name, command, environment, grace_s)

    def _tree(self, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> ChildPlan:
        shim = (sys.executable, "-S", "-E", process_tree.__file__, str(RAY_GRACE_S))
        return self._plan(name, (*shim, *command), environment, RAY_GRACE_S + 2.0)

    def _plan(self, name: str, command: tuple[str, ...], environment: Mapping[str, str], grace_s: float) -> ChildPlan:
        return ChildPlan(
            name=name,
            command=command,
            environment=child_environment(environment),
            log=self.logs / f"{name.lower().replace(' ', '-')}.log",
            stop_grace_s=grace_s,
        )


def local_sockets(stem: str, number: int) -> list[str]:
    """A path for each router; none where there is no stem."""
    return [f"{stem}{index}.sock" if stem else "" for index in range(number)]


def _explain_keeper(code: int) -> str:
    return "found no answer from Ray's head" if code == HEAD_DOES_NOT_ANSWER else describe_exit(code)
