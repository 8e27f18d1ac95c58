"""Sees to it that the controller's actor exists in a Ray cluster, and that Ray's head answers.

    SHARDLINE_RAY_CONTROLLER_CONFIG='{…}' python -m shardline_cluster.controller.ray_controller_process

The actor is detached: this process may come and go without touching it. Beside it, a real control call every two
seconds shows whether the head works, since a hung GCS is noticed by nobody: two that fail end this process with
HEAD_DOES_NOT_ANSWER, and whoever supervises the head decides. SIGTERM ends it in order: where the configuration says
so, the replicas drain and the actor goes, too.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from shardline_cluster.controller.launcher_calls import LauncherBusyError, LauncherCalls
from shardline_cluster.controller.placement import CPU_SLIVER
from shardline_cluster.controller.ray_controller_actor import ControllerActor
from shardline_cluster.controller.ray_controller_config import (
    HEAD_DOES_NOT_ANSWER,
    RAY_CONFIG_VARIABLE,
    RayControllerConfig,
)
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.telemetry.log_output import last_words, set_up_logging

ACTOR_NAME = "shardline-controller"
PROBE_PERIOD_S = 2.0
PROBE_DEADLINE_S = 5.0
JOIN_DEADLINE_S = 60.0
FAILED_PROBES = 2

LOG = logging.getLogger(__name__)


class HeadProbe:
    """Control calls with deadlines, and how many have failed in a row."""

    def __init__(self, deadline_s: float) -> None:
        self._calls = LauncherCalls(deadline_s)
        self.failed = 0

    async def succeeds(self, name: str, call: Callable[[], Any]) -> bool:
        """Whether Ray answered in time."""
        try:
            await self._calls.call(name, call)
        except RayTaskError:
            raise  # Ray works; the actor's own code does not
        except (LauncherBusyError, RayError, ConnectionError) as error:
            self.failed += 1
            LOG.warning("Ray's head did not answer (%d in a row): %s", self.failed, error)
            return False
        self.failed = 0
        return True


async def keep_controller(config: RayControllerConfig) -> int:
    """Joins, keeps the actor, probes the head; returns this process's exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not await HeadProbe(JOIN_DEADLINE_S).succeeds("join", lambda: _join(config)):
        return HEAD_DOES_NOT_ANSWER
    keeper = _ActorKeeper(config)
    probe = HeadProbe(PROBE_DEADLINE_S)
    while not stop.is_set():
        await probe.succeeds("probe", keeper.look)
        if probe.failed >= FAILED_PROBES:
            return HEAD_DOES_NOT_ANSWER
        try:
            await asyncio.wait_for(stop.wait(), PROBE_PERIOD_S)
        except TimeoutError:
            continue
    if config.drain_at_exit_s is not None:
        await HeadProbe(config.drain_at_exit_s + PROBE_DEADLINE_S).succeeds("end", keeper.end)
    return 0


class _ActorKeeper:
    """Blocking calls about the controller's actor; each may hang without Ray's head."""

    def __init__(self, config: RayControllerConfig) -> None:
        self._config = config
        self._actor: Any = None

    def look(self) -> None:
        """A real control call, and the actor made or replaced where that is needed."""
        ray.nodes()
        if self._actor is None:
            self._actor = self._own_actor()
        try:
            ray.get(self._actor.pid.remote(), timeout=PROBE_DEADLINE_S)
        except ActorUnavailableError:
            return  # Ray restarts it
        except RayActorError as error:
            LOG.warning("the controller's actor is gone: %s", str(error).splitlines()[-1])
            self._actor = None

    def end(self) -> None:
        """Lets the replicas drain, then ends the actor."""
        if self._actor is not None:
            ray.get(self._actor.stop_replicas.remote(self._config.drain_at_exit_s))
            ray.kill(self._actor)

    def _own_actor(self) -> Any:
        """The actor with just this configuration: one of an earlier `serve` goes first, with its replicas."""
        ours = to_json(self._config.controller)
        actor = self._get_or_make(ours)
        if ray.get(actor.config.remote()) != ours:
            LOG.warning("a controller with another configuration is here: it is replaced, with its replicas")
            ray.get(actor.stop_replicas.remote(0.0))
            ray.kill(actor)
            actor = self._get_or_make(ours)
        return actor

    def _get_or_make(self, config_json: str) -> Any:
        options = {
            "name": ACTOR_NAME,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "max_concurrency": 4,
            "num_cpus": CPU_SLIVER,
        }
        return ray.remote(ControllerActor).options(**options).remote(config_json)


def _join(config: RayControllerConfig) -> None:
    ray.init(
        address=config.address,
        namespace=config.namespace,
        log_to_driver=False,
        configure_logging=False,
        **({"_node_ip_address": config.node_ip} if config.node_ip else {}),
    )


def main() -> None:
    """Runs the process that the environment describes."""
    try:
        config = from_json(RayControllerConfig, os.environ[RAY_CONFIG_VARIABLE])
    except KeyError:
        sys.exit(f"{RAY_CONFIG_VARIABLE} is not set, but must hold the configuration as JSON")
    except ConfigurationError as error:
        sys.exit(str(error))
    set_up_logging(config.controller.telemetry, "ray")
    try:
        code = asyncio.run(keep_controller(config))
    except ConfigurationError as error:
        last_words(str(error), config.controller.telemetry.log_format)
        sys.exit(1)
    sys.stderr.flush()
    os._exit(code)  # an orderly exit would wait for a head that does not answer


if __name__ == "__main__":
    main()
