"""The life of one `shardline serve`: start, say what happens, end in order."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError, ShardlineError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport
from shardline_cluster.fleet.redis_deployment_store import RedisDeploymentStore
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.serve.fleet_watch import changes, hopeless, is_up
from shardline_cluster.serve.local_cluster import LocalCluster
from shardline_cluster.serve.private_folder import PrivateFolder
from shardline_cluster.serve.serve_options import ServeOptions

WATCH_PERIOD_S = 0.3
DEPLOYED_PERIOD_S = 1.0  # routers and controller miss a deployment for longer before they believe that it is gone
IMPATIENT = 130  # exit code after a second signal

Say = Callable[[str], None]
Announce = Callable[[str, str], None]


async def serve(options: ServeOptions, deployment: Deployment, *, port: int, say: Say, announce: Announce) -> None:
    """Serves `deployment` on the reserved `port` until SIGTERM, SIGINT or SIGHUP.

    `say` gets a line a step; `announce` the endpoint and the address of Redis, once routers serve. A second signal ends
    this process at once: everything that it started dies with it.

    Raises:
        ShardlineError: something did not start, or no replica ever will.
    """
    stop = _stop_signals()
    folder = PrivateFolder()
    cluster = LocalCluster(options, folder=folder, port=port, say=say)
    try:
        serving = _Serving(options, deployment, cluster=cluster, say=say)
        await _first_end(stop.wait(), serving.run(announce))
        say("stopping: routers, replicas, Redis")
    finally:
        await cluster.stop()
        folder.remove()


class _Serving:
    """The steps between starting and being told to stop."""

    def __init__(self, options: ServeOptions, deployment: Deployment, *, cluster: LocalCluster, say: Say) -> None:
        self._options = options
        self._deployment = deployment
        self._cluster = cluster
        self._say = say
        self._seen: DeploymentReport | None = None
        self._was_ready = False

    async def run(self, announce: Announce) -> None:
        """Starts everything and tells the fleet's news for ever."""
        await self._cluster.start_redis()
        await self._deploy()
        await self._cluster.start_fleet()
        await self._cluster.start_routers()
        announce(self._cluster.endpoint, self._cluster.redis_url)
        await _first_end(self._watch(), self._keep_deployed(), self._cluster.kept())

    async def _deploy(self) -> None:
        async with self._store() as store:
            await store.put(self._deployment)

    async def _keep_deployed(self) -> None:
        """Puts the deployment back where Redis has forgotten it: nobody else would, and nothing be served any more."""
        async with self._store() as store:
            while True:
                with suppress(ShardlineError):  # Redis is away, or another version writes there
                    if self._deployment.name not in await store.all():
                        await store.put(self._deployment)
                await asyncio.sleep(DEPLOYED_PERIOD_S)

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[RedisDeploymentStore]:
        store = RedisDeploymentStore(self._cluster.redis_url, prefix=self._options.redis_prefix)
        try:
            yield store
        finally:
            await store.close()

    async def _watch(self) -> None:
        url, prefix = self._cluster.redis_url, self._options.redis_prefix
        reports = RedisFleetReportStore(url, prefix=prefix)
        lane = RedisRequestQueue(url, self._deployment.lane, prefix=prefix, terms=self._options.terms)
        try:
            while True:
                with suppress(QueueUnavailableError):  # whoever keeps Redis says so
                    in_hold = not self._was_ready and (await lane.view()).in_hold
                    self._tell(await reports.get(), in_hold=in_hold)
                await asyncio.sleep(WATCH_PERIOD_S)
        finally:
            await lane.close()
            await reports.close()

    def _tell(self, fleet: FleetReport | None, *, in_hold: bool) -> None:
        """Says what is new; the first time that all is well, how to reach it.

        During a hold requests are accepted, but those with an idempotency key wait for its end: that is not ready yet.
        """
        report = fleet.deployment(self._deployment.name) if fleet is not None else None
        if report is None:
            return
        for line in changes(self._seen, report):
            self._say(line)
        self._seen = report
        if not self._was_ready and (reason := hopeless(report)):
            raise ConfigurationError(f"{self._deployment.name} cannot be served: {reason}")
        if not self._was_ready and is_up(report) and not in_hold:
            self._was_ready = True
            part = "" if report.num_ready == len(report.places) else f" with {report.num_ready} replicas so far"
            self._say(f"ready: grpc://{self._cluster.endpoint} serves {self._deployment.name}{part}")
            self._say(
                f"in another terminal: shardline chat --endpoint {self._cluster.endpoint}; Ctrl-C here stops everything"
            )


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            os._exit(IMPATIENT)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return stop


async def _first_end(*waits: Coroutine[Any, Any, Any]) -> None:
    """Waits until one of them has ended, cancels the others, and raises what the first one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
