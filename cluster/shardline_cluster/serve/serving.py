"""The life of one `shardline serve`: start, say what happens, end in order."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError, ShardlineError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import DeploymentRecords, deployments_on_redis
from shardline_cluster.fleet.fleet_report import DeploymentReport, report_on_lane
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.redeployment import check_cluster_is_the_same, check_lane_is_free, redeployed
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.fleet.replica_state import ReplicaStatus
from shardline_cluster.processes.first_end import first_end
from shardline_cluster.processes.wall_clock import wall_clock_ms
from shardline_cluster.queue.answers import LaneView
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.serve.answered_call import answered_within
from shardline_cluster.serve.cluster_claim import wait_until_free
from shardline_cluster.serve.fleet_watch import FleetNews, hopeless, is_up
from shardline_cluster.serve.local_cluster import LocalCluster
from shardline_cluster.serve.private_folder import PrivateFolder
from shardline_cluster.serve.serve_options import ServeOptions
from shardline_cluster.serve.start_times import StartPhase, StartTimes
from shardline_cluster.serve.start_watch import StartWatch

DEPLOY_WITHIN_S = 20.0  # of each call: a loaded machine answers late
START_WATCH_PERIOD_S = 0.1  # until it is ready: a user waits
WATCH_PERIOD_S = 0.3
REMEMBERING_PERIOD_S = 1.0
IMPATIENT = 130  # exit code after a second signal

Say = Callable[[str], None]


class Announcer(Protocol):
    """Tells other commands of this server."""

    def serving(self, endpoint: str, redis_url: str, *, local_endpoints: tuple[str, ...]) -> None:
        """Routers serve at these endpoints; replicas may not be there yet. See `LocalCluster`."""
        ...

    def ready(self, phases: Sequence[StartPhase]) -> None:
        """Everything is there, and this is how long it took."""
        ...


async def serve(
    options: ServeOptions,
    deployments: Sequence[Deployment],
    *,
    port: int,
    say: Say,
    announcer: Announcer,
    times: StartTimes,
) -> None:
    """Serves `deployments`, of which there is at least one, on the reserved `port` until SIGTERM, SIGINT or SIGHUP.

    `say` gets a line a step; `announcer` hears when routers serve and when all is ready; `times` goes on from what came
    before. A second signal ends this process at once: everything that it started dies with it.

    Raises:
        ShardlineError: something did not start, or no replica ever will.
    """
    stop = _stop_signals()
    folder = PrivateFolder()
    cluster = LocalCluster(options, folder=folder, port=port, say=say, times=times)
    try:
        serving = _Serving(options, deployments, cluster=cluster, say=say, announcer=announcer, times=times)
        await first_end(stop.wait(), serving.run())
        say("stopping: routers, replicas, Redis")
    finally:
        await cluster.stop()
        folder.remove()


class _Serving:
    """The steps between starting and being told to stop."""

    def __init__(
        self,
        options: ServeOptions,
        deployments: Sequence[Deployment],
        *,
        cluster: LocalCluster,
        say: Say,
        announcer: Announcer,
        times: StartTimes,
    ) -> None:
        self._options = options
        self._deployments = tuple(deployments)
        self._cluster = cluster
        self._say = say
        self._announcer = announcer
        self._times = times
        self._news = FleetNews()

    async def run(self) -> None:
        """Starts everything and tells the fleet's news for ever. Routers need nothing of what starts replicas."""
        with self._times.phase("Redis"):
            await self._cluster.start_redis()
        if self._options.ray_address is None:  # in a Ray cluster that outlives us, our controller may be there already
            url, prefix = self._cluster.redis_url, self._options.redis_prefix
            await wait_until_free(url, prefix=prefix, cluster=self._options.name, say=self._say)
        records = deployments_on_redis(self._cluster.redis_url, prefix=self._options.redis_prefix)
        try:
            await first_end(self._start(records), self._cluster.watch_redis())
            self._announcer.serving(
                self._cluster.endpoint, self._cluster.redis_url, local_endpoints=self._cluster.local_endpoints
            )
            await first_end(self._watch(), self._remember(records), self._cluster.kept())
        finally:
            await records.close()

    async def _start(self, records: DeploymentRecords) -> None:
        await self._deploy(records)
        await _together(self._cluster.start_fleet(), self._cluster.start_routers())

    async def _deploy(self, records: DeploymentRecords) -> None:
        """Begins the lanes' holds as early as can be, so that they are over when replicas are up, and deploys."""
        async with self._lanes() as lanes:
            for lane in lanes:
                opening = lane.open_on_new_server if self._cluster.has_new_redis else lane.open
                await answered_within(opening, within_s=DEPLOY_WITHIN_S)
        for deployment in self._deployments:
            await answered_within(partial(self._put, records, deployment), within_s=DEPLOY_WITHIN_S)
        self._tell_of_others(records)

    async def _put(self, records: DeploymentRecords, deployment: Deployment) -> None:
        await records.change(deployment.name, lambda before: self._decided(records, deployment, before))

    def _decided(self, records: DeploymentRecords, deployment: Deployment, before: Deployment | None) -> Deployment:
        check_cluster_is_the_same(before, deployment)
        check_lane_is_free(deployment, records.values.values())
        return redeployed(before, deployment, now_ms=wall_clock_ms())

    def _tell_of_others(self, records: DeploymentRecords) -> None:
        """Deployments of this cluster that an earlier `serve` left in an external Redis are served, too."""
        asked_for = {deployment.name for deployment in self._deployments}
        for name, other in records.values.items():
            if other.cluster == self._options.name and name not in asked_for:
                self._say(f"serving {name}, too, deployed earlier: `shardline undeploy {name}` takes it away")

    async def _remember(self, records: DeploymentRecords) -> None:
        """Puts back what Redis has forgotten: routers and the controller may have been started again by then."""
        while True:
            with suppress(ShardlineError):  # Redis is away, or another version writes there
                await records.refresh()
            await asyncio.sleep(REMEMBERING_PERIOD_S)

    @asynccontextmanager
    async def _lanes(self) -> AsyncIterator[Sequence[RedisRequestQueue]]:
        """Those of all deployments, in their order."""
        url, prefix, terms = self._cluster.redis_url, self._options.redis_prefix, self._options.terms
        lanes = [RedisRequestQueue(url, each.lane, prefix=prefix, terms=terms) for each in self._deployments]
        try:
            yield lanes
        finally:
            for lane in lanes:
                await lane.close()

    async def _watch(self) -> None:
        reports = RedisFleetReportStore(self._cluster.redis_url, prefix=self._options.redis_prefix)
        try:
            async with self._lanes() as lanes:
                await self._watch_start(reports, lanes)
            while True:
                with suppress(QueueUnavailableError):  # whoever keeps Redis says so
                    await self._reports(reports)
                await asyncio.sleep(WATCH_PERIOD_S)
        finally:
            await reports.close()

    async def _watch_start(self, store: RedisFleetReportStore, lanes: Sequence[RedisRequestQueue]) -> None:
        """Until everything is ready for the first time.

        During a hold requests are accepted, but those with an idempotency key wait for its end: that is not ready yet.
        The phases are those of the first model's replicas.
        """
        watch = StartWatch(self._times, controller_began_s=self._cluster.controller_began_s)
        while True:
            with suppress(QueueUnavailableError):
                reports, views = await self._reports(store), [await lane.view() for lane in lanes]
                if reports[0] is not None:
                    watch.saw(reports[0], _statuses(views[0].value))
                known = [report for report in reports if report is not None]
                self._refuse_hopeless(known)
                if len(known) == len(lanes) and all(map(is_up, known)) and not any(view.in_hold for view in views):
                    watch.ready()
                    self._tell_ready(known)
                    return
            await asyncio.sleep(START_WATCH_PERIOD_S)

    async def _reports(self, store: RedisFleetReportStore) -> list[DeploymentReport | None]:
        """Tells the news of this cluster's fleet; the reports on the models with which it began, in their order."""
        fleets = await store.all()
        if (ours := fleets.get(self._options.name)) is not None:
            for line in self._news.of(ours):
                self._say(line)
        return [report_on_lane(fleets, deployment) for deployment in self._deployments]

    def _refuse_hopeless(self, reports: Sequence[DeploymentReport]) -> None:
        for report in reports:
            if reason := hopeless(report):
                raise ConfigurationError(f"{report.name} cannot be served: {reason}")

    def _tell_ready(self, reports: Sequence[DeploymentReport]) -> None:
        """How to reach it, and how long everything took."""
        self._say(self._times.line())
        self._announcer.ready(self._times.phases)
        names = ", ".join(f"{report.name}{_part(report)}" for report in reports)
        self._say(f"ready: {self._cluster.endpoint} serves {names}")
        if address := self._cluster.metrics_address:
            self._say(f"metrics: http://{address}/metrics of the controller, http://{address}/targets lists all others")
        self._say(f"logs: {self._cluster.log_folder}, until this ends")
        where = f"--endpoint {self._cluster.endpoint}" if self._options.tls is None else f"--name {self._options.name}"
        if self._options.access.keys_required:
            self._say("callers show a key, in SHARDLINE_API_KEY for instance (docs/security.md)")
        self._say(f"in another terminal: shardline chat {where}; Ctrl-C here stops everything")


def _part(report: DeploymentReport) -> str:
    return "" if report.num_ready == len(report.places) else f" with {report.num_ready} replicas so far"


def _statuses(view: LaneView) -> list[ReplicaStatus]:
    """What replicas of this version say of themselves."""
    statuses = []
    for leader in view.leaders:
        with suppress(ConfigurationError):
            statuses.append(from_json(ReplicaStatus, leader.status))
    return statuses


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            os._exit(IMPATIENT)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return stop


async def _together(*works: Coroutine[Any, Any, Any]) -> None:
    """Waits until all are done; cancels the others when one fails, and raises what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
