"""What a router says of its health: of itself and its services, and of each model that is deployed.

The router and its services are SERVING while Redis answers: then a request can be accepted. A model is SERVING while a
ready replica steps: a wedged engine ends its leader, or its lease runs out, and either takes it off the lane.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from shardline_cluster.errors import ShardlineError
from shardline_cluster.fleet.ready_leaders import ready_leaders
from shardline_cluster.queue.answers import LaneView
from shardline_cluster.router.model_directory import ModelDirectory, ServedModel
from shardline_cluster.router.router_metrics import RouterMetrics
from shardline_cluster.telemetry.metrics_server import Health

HEALTH_PERIOD_S = 0.5
LATE_S = 5.0  # a router whose loop is silent for longer is not well, whatever it said before

_STATES: Any = health_pb2.HealthCheckResponse
log = logging.getLogger(__name__)


class RouterHealth:
    """Watches a directory, and tells the standard health service."""

    def __init__(
        self,
        directory: ModelDirectory,
        services: Iterable[str],
        metrics: RouterMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`services`: names of gRPC services that serve as long as Redis answers."""
        self.servicer = HealthServicer()
        self._directory = directory
        self._services = tuple(services)
        self._metrics = metrics
        self._clock = clock
        self._looked_s = clock()
        self._available = False
        self._models: Mapping[str, bool] = {}
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Nothing serves yet; looks again and again from now on."""
        await self._tell_services(serving=False)
        loops = (self.look, self.look_at_models)
        self._watching = [asyncio.create_task(_every_period(loop)) for loop in loops]

    async def stop(self) -> None:
        """Nothing serves any more."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._tell_services(serving=False)
        await self._tell_models(dict.fromkeys(self._models, False))

    async def look(self) -> None:
        """Looks whether Redis answers."""
        self._looked_s, self._available = self._clock(), self._directory.available
        self._metrics.available.set(self._available)
        await self._tell_services(serving=self._available)
        if not self._available:
            await self._tell_models(dict.fromkeys(self._models, False))

    async def look_at_models(self) -> None:
        """Looks which models a ready replica serves."""
        if self._directory.available:
            await self._tell_models(await serving_models(self._directory))

    def health(self) -> Health:
        """For `/health`; may be called in any thread."""
        silent_s = self._clock() - self._looked_s
        if silent_s > LATE_S:
            return Health(f"the router's event loop has been silent for {silent_s:.0f} s")
        return Health("" if self._available else "Redis does not answer, so nothing can be accepted")

    async def _tell_services(self, *, serving: bool) -> None:
        for name in self._services:
            await self.servicer.set(name, _state(serving=serving))

    async def _tell_models(self, models: Mapping[str, bool]) -> None:
        """A model that is not deployed any more is unknown, as one that never was."""
        for name in self._models.keys() - models.keys() - set(self._services):
            await self.servicer.set(name, _STATES.SERVICE_UNKNOWN)
        for name in models.keys() - self._models.keys():
            self._metrics.know(name)
        for name, serves in models.items():
            if name not in self._services:
                await self.servicer.set(name, _state(serving=serves))
        self._models = models


async def serving_models(directory: ModelDirectory) -> dict[str, bool]:
    """Every deployed model, and whether a ready replica serves it now."""
    deployments = directory.deployments()
    found = {name: served for name, d in deployments.items() if (served := directory.served(d)) is not None}
    lanes = {served.deployment.lane: served for served in found.values()}
    views = dict(zip(lanes, await asyncio.gather(*map(_view, lanes.values())), strict=True))
    return {name: name in found and _serves(views[deployments[name].lane], name) for name in deployments}


async def _view(served: ServedModel) -> LaneView | None:
    streams = served.lane.streams
    try:
        async with asyncio.timeout(2 * streams.queue.terms.call_timeout_ms / 1000):
            return await streams.view()
    except (ShardlineError, TimeoutError):
        return None


def _serves(view: LaneView | None, model: str) -> bool:
    return view is not None and any(True for _ in ready_leaders(view, model))


def _state(*, serving: bool) -> Any:
    return _STATES.SERVING if serving else _STATES.NOT_SERVING


async def _every_period(look: Callable[[], Any]) -> None:
    while True:
        try:
            await look()
        except ShardlineError as error:
            log.debug("looking at the models failed: %s", error)
        await asyncio.sleep(HEALTH_PERIOD_S)
