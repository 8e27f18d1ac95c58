"""The controller: observe → decide → act, twice a second, for as long as it lives.

It acts only while it holds its cluster's lease: two controllers of one cluster would undo each other's work.

It holds nothing that a restart would miss: what is wanted lies in Redis, what runs is told by the launcher, how it
fares by the lanes. A round that cannot see all three (Redis or Ray's head is away) decides nothing: replicas go on
without their controller, and a controller that acted on half of the truth would do harm.
"""

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from prometheus_client import CollectorRegistry

from shardline_cluster.controller.actions import Action, Kill, ReportDead, Start, Stop
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.fleet_history import FleetHistory, FleetRound, with_refusal
from shardline_cluster.controller.fleet_metrics import FleetMetrics, new_crashes
from shardline_cluster.controller.fleet_reporting import report_on
from shardline_cluster.controller.former_lanes import lanes_to_watch, to_be_served
from shardline_cluster.controller.lane_watch import LaneSight, LaneWatch
from shardline_cluster.controller.launcher_calls import LauncherBusyError, LauncherCalls
from shardline_cluster.controller.node_watch import NodeWatch
from shardline_cluster.controller.placement import memory_share, replicas_on_host
from shardline_cluster.controller.reconciler import reconcile
from shardline_cluster.controller.replica_launcher import ReplicaLauncher, ReplicaObservation
from shardline_cluster.controller.replica_limits import ReplicaLimits
from shardline_cluster.controller.replica_place import ReplicaPlace
from shardline_cluster.errors import ConfigurationError, QueueUnavailableError, ShardlineError
from shardline_cluster.fleet.controller_lease import RENEWAL_S, ControllerLease, NotInChargeError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import DeploymentRecords
from shardline_cluster.fleet.fleet_report import FleetReportStore
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.processes.wall_clock import wall_clock_ms
from shardline_cluster.queue.calls import DeadMember, LaneBounds
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.telemetry.metrics_server import Health

KILLED_WITHIN_S = 2.0
STOP_POLL_S = 0.1

LOG = logging.getLogger(__name__)


class Controller:
    """Keeps the replicas that the deployments ask for. Lives on one event loop; `close` lets go of everything."""

    def __init__(
        self,
        config: ControllerConfig,
        *,
        deployments: DeploymentRecords,
        reports: FleetReportStore,
        lease: ControllerLease,
        launcher: ReplicaLauncher,
        open_queue: Callable[[str], RequestQueue],
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = wall_clock_ms,
        metrics: FleetMetrics | None = None,
    ) -> None:
        self.incarnation = draw_incarnation()
        self._config = config
        self._deployments = deployments
        self._reports = reports
        self._lease = lease
        self._launcher = launcher
        self._open_queue = open_queue
        self._clock = clock
        self._now_ms = now_ms
        self._metrics = metrics or FleetMetrics(CollectorRegistry())
        self._limits = ReplicaLimits.for_terms(config.terms, replan=config.replan)
        self._calls = LauncherCalls(config.call_deadline_s)
        self._nodes = NodeWatch(launcher)
        self._lanes: dict[str, LaneWatch] = {}
        self._history = FleetHistory()
        self._trouble = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Plays rounds until `stop` is set. Replicas live on."""
        renewing = asyncio.create_task(self._keep_lease())
        try:
            while not stop.is_set():
                await self._try_round()
                try:
                    await asyncio.wait_for(stop.wait(), self._config.period_s)
                except TimeoutError:
                    continue
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def play_round(self) -> None:
        """One round.

        Raises:
            QueueUnavailableError: Redis did not answer.
            LauncherBusyError: the launcher did not.
            NotInChargeError: another controller keeps this cluster.
        """
        await self._lease.renew()
        fleet = await self._observe()
        decided = reconcile(fleet, self._history, self._limits)
        await self._lease.renew()  # observing may have taken long
        self._metrics.saw(fleet.desired, {name: lane.view for name, lane in self._lanes.items() if lane.view})
        self._metrics.crashed(new_crashes(self._history, decided.history), fleet.desired)
        self._history = decided.history
        await self._act(decided.actions, fleet)
        report = report_on(
            fleet.desired,
            self._history,
            cluster=self._config.cluster,
            controller=self.incarnation,
            written_at=self._now_ms() / 1000,
        )
        await self._reports.put(report)

    async def stop_replicas(self, grace_s: float) -> None:
        """Lets all replicas drain, kills what is left after `grace_s`, and leaves nothing of them behind.

        Needs no Redis. No round may follow.
        """
        await self._on_each(await self._living(), "stop", self._launcher.stop)
        await self._on_each(await self._living_after(grace_s), "kill", self._launcher.kill)
        await self._living_after(KILLED_WITHIN_S)
        gone = [seen.incarnation for seen in await self._observed()]
        await self._on_each(gone, "forget", self._launcher.forget)

    async def close(self) -> None:
        """Gives the lease back, closes connections and lets go of the launcher."""
        with suppress(QueueUnavailableError):  # then it ends by itself
            await self._lease.release()
        for lane in self._lanes.values():
            await lane.close()
        await self._deployments.close()
        await self._reports.close()
        await self._lease.close()
        self._launcher.close()

    async def _keep_lease(self) -> None:
        """Beside the rounds, which may wait for a launcher for longer than a lease lasts."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            with suppress(QueueUnavailableError, NotInChargeError):  # the round says so
                await self._lease.renew()

    def health(self) -> Health:
        """Whether the last round saw everything, and lately. May be called in any thread."""
        return self._metrics.health()

    # --- observe -------------------------------------------------------------------------------------------------

    async def _try_round(self) -> None:
        began_s = self._clock()
        try:
            await self.play_round()
            trouble = ""
        except ShardlineError as error:
            trouble = str(error)
        self._metrics.round_ended(trouble, self._clock() - began_s)
        if trouble and trouble != self._trouble:
            LOG.warning("nothing is decided for now: %s", trouble)
        elif self._trouble and not trouble:
            LOG.info("everything answers again")
        self._trouble = trouble

    async def _observe(self) -> FleetRound:
        await self._deployments.refresh()
        ours = [d for _, d in sorted(self._deployments.values.items()) if d.cluster == self._config.cluster]
        now_ms = self._now_ms()
        observed = await self._observed()
        sights = await self._look(lanes_to_watch(ours, now_ms=now_ms), observed)
        with_work = {lane for lane, sight in sights.items() if sight.may_have_work}
        return FleetRound(
            desired=to_be_served(ours, with_work, now_ms=now_ms),
            observed=observed,
            statuses={name: status for sight in sights.values() for name, status in sight.statuses.items()},
            now_s=self._clock(),
            back_off=self._limits.back_off,
            nodes=await self._nodes.look(ours),
        )

    async def _look(
        self, wanted: Iterable[Deployment], observed: Iterable[ReplicaObservation]
    ) -> Mapping[str, LaneSight]:
        """Every lane that is wanted or has replicas, by name."""
        bounds = {d.lane: LaneBounds(largest_request_tokens=d.max_model_len) for d in wanted}
        await self._watch_only({*bounds, *(ReplicaPlace.of(seen.replica).lane for seen in observed)})
        sights = await asyncio.gather(*(watch.look(bounds.get(lane)) for lane, watch in self._lanes.items()))
        return dict(zip(self._lanes, sights, strict=True))

    async def _watch_only(self, lanes: set[str]) -> None:
        for lane in lanes - self._lanes.keys():
            self._lanes[lane] = LaneWatch(self._open_queue(lane))
        for lane in self._lanes.keys() - lanes:
            await self._lanes.pop(lane).close()

    # --- act -----------------------------------------------------------------------------------------------------

    async def _act(self, actions: tuple[Action, ...], fleet: FleetRound) -> None:
        """The dead first: their requests wait. Then everything else at once: no action waits for another's deadline."""
        try:
            await self._report_dead([action for action in actions if isinstance(action, ReportDead)])
        finally:
            await asyncio.gather(*(self._carry_out(action, fleet) for action in actions))

    async def _report_dead(self, reports: list[ReportDead]) -> None:
        by_lane: dict[str, list[DeadMember]] = defaultdict(list)
        for report in reports:
            by_lane[report.lane].append(DeadMember(report.incarnation, report.had_drained))
        for lane, dead in by_lane.items():
            if await self._lanes[lane].report_dead(dead):
                await self._on_each([member.incarnation for member in dead], "forget", self._launcher.forget)

    async def _carry_out(self, action: Action, fleet: FleetRound) -> None:
        match action:
            case Start():
                await self._start(action, fleet)
            case Stop(incarnation, reason):
                place = self._history.lives[incarnation].place
                LOG.info("stopping replica %s (%s): %s", place, incarnation, reason, extra={"replica": place})
                await self._on_each([incarnation], "stop", self._launcher.stop)
            case Kill(incarnation, reason):
                place = self._history.lives[incarnation].place
                LOG.warning("killing replica %s (%s): %s", place, incarnation, reason, extra={"replica": place})
                await self._on_each([incarnation], "kill", self._launcher.kill)

    async def _start(self, action: Start, fleet: FleetRound) -> None:
        spec = self._spec(action, fleet)
        told = {"replica": spec.replica, "lane": action.place.lane, "model": action.deployment.name}
        LOG.info("starting replica %s (%s): %s", spec.replica, spec.incarnation, action.reason, extra=told)
        try:
            await self._guarded(f"start {spec.replica}", lambda: self._launcher.start(spec))
            self._metrics.started(action.deployment)
        except ConfigurationError as refusal:
            LOG.error("replica %s cannot be started: %s", spec.replica, refusal, extra=told)
            self._history = with_refusal(
                self._history,
                spec.replica,
                str(refusal),
                settings=action.deployment.settings,
                back_off=self._limits.back_off,
            )

    def _spec(self, action: Start, fleet: FleetRound) -> ReplicaSpec:
        memory = memory_share(
            action.deployment,
            fleet.desired,
            fleet.statuses.values(),
            whole_gpus=self._launcher.gives_whole_gpus,
        )
        return ReplicaSpec(
            deployment=action.deployment,
            replica=action.place.name,
            incarnation=draw_incarnation(),
            gang=action.gang,
            redis_url=self._config.redis_url,
            prefix=self._config.prefix,
            terms=self._config.terms,
            replicas_on_host=replicas_on_host(fleet.desired),
            memory_sharers=memory.sharers,
            memory_taken_bytes=memory.taken_bytes,
            telemetry=replace(self._config.telemetry, metrics_port=0),
        )

    async def _on_each(self, incarnations: list[str], name: str, do: Callable[[str], None]) -> None:
        def bound(incarnation: str) -> Awaitable[None]:
            return self._guarded(f"{name} {incarnation}", lambda: do(incarnation))

        await asyncio.gather(*(bound(incarnation) for incarnation in incarnations))

    async def _guarded(self, name: str, function: Callable[[], None]) -> None:
        """A call whose lateness is no reason to stop: the next round sees what became of it."""
        try:
            await self._calls.call(name, function)
        except LauncherBusyError as late:
            LOG.warning("%s", late)

    async def _living_after(self, patience_s: float) -> list[str]:
        """Who is still alive once all have ended, or patience has."""
        give_up = self._clock() + patience_s
        while True:
            living = await self._living()
            if not living or self._clock() >= give_up:
                return living
            await asyncio.sleep(STOP_POLL_S)

    async def _living(self) -> list[str]:
        return [seen.incarnation for seen in await self._observed() if seen.alive]

    async def _observed(self) -> tuple[ReplicaObservation, ...]:
        return tuple(await self._calls.call("observe", self._launcher.observe))


def draw_incarnation() -> str:
    """A name for one life of a process, never used twice."""
    return secrets.token_hex(8)
