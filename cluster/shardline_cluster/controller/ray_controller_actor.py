"""The controller as a detached Ray actor, which Ray restarts wherever there is room.

It runs on an event loop of its own in a thread of its own; the actor's methods only ask how it is and tell it to end.
Ray knows no way to notice that a thread died: so the whole process ends with it. The class has no coroutine on purpose:
a single one would make Ray run all methods on one loop, where a method that waits blocks every other.
"""

import asyncio
import logging
import os
import threading

import ray
from prometheus_client import CollectorRegistry

from shardline_cluster.controller.controller import Controller
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.ray_launcher import RayLauncher
from shardline_cluster.controller.redis_controller import controller_on_redis
from shardline_cluster.controller.scrape_targets import controller_exporting
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.telemetry.log_output import set_up_logging

LOG = logging.getLogger(__name__)


class ControllerActor:
    """Made into an actor by `ray_controller_process`."""

    def __init__(self, config_json: str) -> None:
        self._config_json = config_json
        self._config = from_json(ControllerConfig, config_json)
        set_up_logging(self._config.telemetry, "controller")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._controller: Controller | None = None
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._thread.start()

    def pid(self) -> int:
        """This actor's process; an answer means that it is there."""
        return os.getpid()

    def config(self) -> str:
        """The configuration with which it was made."""
        return self._config_json

    def stop_replicas(self, grace_s: float) -> None:
        """Ends the rounds, lets all replicas drain, kills what is left after `grace_s`, and gives the lease back."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._controller is not None:
            self._loop.run_until_complete(self._controller.stop_replicas(grace_s))
            self._loop.run_until_complete(self._controller.close())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            registry = CollectorRegistry()
            self._controller = controller_on_redis(self._config, RayLauncher(), holder=_holder(), registry=registry)
            self._loop.run_until_complete(_serve(self._controller, registry, self._config, self._stop))
        except BaseException:
            LOG.exception("the controller failed")
            os._exit(1)


def _holder() -> str:
    """What there is one of: the actor of this name in this namespace of this Ray cluster."""
    context = ray.get_runtime_context()
    return f"ray:{context.gcs_address}:{context.namespace}"


async def _serve(
    controller: Controller, registry: CollectorRegistry, config: ControllerConfig, stop: asyncio.Event
) -> None:
    async with controller_exporting(controller, registry, config):
        await controller.run(stop)
