"""Deployments and replicas as operators look after them: the core under the Admin service.

Knows no transport: it takes and gives the messages of `shardline.v1` and raises ShardlineErrors. It writes what is
wanted; the controller of the deployment's cluster makes it so.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from shardline_cluster.errors import (
    LaneNotEmptyError,
    ReplicaNotReadyError,
    UnknownDeploymentError,
    UnknownReplicaError,
)
from shardline_cluster.fleet.cluster_status import DeploymentRow, ReplicaRow, observe
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_plan import WantedModel
from shardline_cluster.fleet.deployment_records import DeploymentRecords
from shardline_cluster.fleet.fleet_report import FleetReportStore
from shardline_cluster.fleet.redeployment import check_lane_is_free, redeployed
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.processes.wall_clock import wall_clock_ms
from shardline_cluster.queue.answers import LaneView
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.router.admin.deployment_messages import (
    deployment_message,
    num_replicas,
    replica_message,
    wanted_model,
)
from shardline_cluster.router.admission.field_checks import check_no_unknown_fields, invalid
from shardline_protos import admin_pb2 as pb

Plan = Callable[[WantedModel, Callable[[str], None]], Deployment]

PLANNING_THREADS = 2  # models may be downloaded for minutes; more of them wait for their turn

log = logging.getLogger(__name__)


class DeploymentAdministration:
    """Over the deployments that one router knows. Belongs to one event loop."""

    def __init__(
        self,
        records: DeploymentRecords,
        reports: FleetReportStore,
        *,
        open_queue: Callable[[str], RequestQueue],
        plan: Plan,
        notice: Callable[[], Awaitable[None]],
        cluster: str,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Begins to do nothing.

        Args:
            records: shared with the router's directory of models.
            reports: of the controllers.
            open_queue: connects to a lane.
            plan: from a wanted model to its deployment; may take minutes, runs in a thread, gets where to tell of it.
            notice: lets the router see a change at once.
            cluster: in which new deployments are made.
            now_ms: since 1970.
        """
        self._records = records
        self._reports = reports
        self._open_queue = open_queue
        self._queues: dict[str, RequestQueue] = {}  # by lane: of those that operators look at
        self._plan = plan
        self._notice = notice
        self._cluster = cluster
        self._now_ms = now_ms
        self._planners = ThreadPoolExecutor(PLANNING_THREADS, thread_name_prefix="plan")

    async def apply(self, request: pb.ApplyDeploymentRequest) -> AsyncGenerator[pb.ApplyDeploymentEvent, None]:
        """Plans and deploys; tells of it meanwhile. Nothing is deployed where nobody hears the end.

        Raises:
            InvalidRequestError: a field is wrong.
            ConfigurationError: the model cannot be served.
            LaneNotEmptyError: the context gets shorter, and requests are there that may be longer.
            ChangedMeanwhileError: others changed the same deployment again and again.
            QueueUnavailableError: no answer came.
        """
        check_no_unknown_fields(request)
        wanted = wanted_model(request, cluster=self._cluster)
        await self._records.refresh()  # before minutes are spent
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        planning = self._planned(wanted, lines)
        while (line := await lines.get()) is not None:
            yield pb.ApplyDeploymentEvent(progress=line)
        planned = await planning
        await self._check_context(planned)

        def decide(before: Deployment | None) -> Deployment:
            check_lane_is_free(planned, self._records.values.values())
            number = before.num_replicas if before and not request.HasField("replicas") else planned.num_replicas
            return redeployed(before, replace(planned, num_replicas=number), now_ms=self._now_ms())

        await self._change(planned.name, decide)
        log.info("deployed %s from %s in the lane %s", planned.name, planned.model, planned.lane)
        yield pb.ApplyDeploymentEvent(deployment=await self._message(planned.name))

    async def delete(self, request: pb.DeleteDeploymentRequest) -> pb.DeleteDeploymentResponse:
        """Takes a deployment away.

        Raises:
            UnknownDeploymentError: there is none of this name.
            QueueUnavailableError: no answer came.
        """
        check_no_unknown_fields(request)
        await self._change(request.name, lambda before: self._no_more(before, request.name))
        log.info("took away the deployment %s", request.name)
        return pb.DeleteDeploymentResponse()

    async def list_deployments(self, _request: pb.ListDeploymentsRequest) -> pb.ListDeploymentsResponse:
        """All deployments, in order of names. Raises as `observe`."""
        rows = [row for row in await self._rows() if not row.is_former]
        return pb.ListDeploymentsResponse(deployments=[self._told(row) for row in rows])

    async def scale(self, request: pb.ScaleDeploymentRequest) -> pb.Deployment:
        """Changes the number of replicas alone.

        Raises:
            InvalidRequestError: the number is missing, or out of bounds.
            UnknownDeploymentError: there is none of this name.
            QueueUnavailableError: no answer came.
        """
        check_no_unknown_fields(request)
        if not request.HasField("replicas"):
            raise invalid("replicas", "is missing", "say how many there are to be; 0 keeps the lane alone")
        number = num_replicas(request.replicas)
        await self._change(request.name, lambda before: replace(self._known(before, request.name), num_replicas=number))
        log.info("scaled %s to %d replicas", request.name, number)
        return await self._message(request.name)

    async def list_replicas(self, request: pb.ListReplicasRequest) -> pb.ListReplicasResponse:
        """Replicas of one deployment or of all, those that serve its former weights too.

        Raises:
            UnknownDeploymentError: there is none of this name.
            QueueUnavailableError: no answer came.
        """
        rows = await self._rows()
        if request.deployment:
            self._known(self._records.values.get(request.deployment), request.deployment)
        return pb.ListReplicasResponse(
            replicas=[
                replica_message(replica, deployment=row.name)
                for row in rows
                if request.deployment in ("", row.name)
                for replica in row.replicas
            ]
        )

    async def drain(self, request: pb.DrainReplicaRequest) -> pb.DrainReplicaResponse:
        """Asks a replica to hand over what it has and end.

        Raises:
            InvalidRequestError: several incarnations begin so, or nothing was given.
            UnknownReplicaError: no replica's incarnation begins so.
            ReplicaNotReadyError: it does not serve.
            QueueUnavailableError: no answer came.
        """
        check_no_unknown_fields(request)
        row, replica = _the_one(await self._rows(), request.incarnation)
        if replica.state == ReplicaState.READY.value:
            await self._ask_to_drain(row.lane.lane, replica.incarnation)
        elif replica.state != ReplicaState.DRAINING.value:
            raise ReplicaNotReadyError(
                f"the replica {replica.incarnation} in {replica.replica} is {replica.state}, and only one that is "
                "READY has anything to hand over: wait until it is"
            )
        return pb.DrainReplicaResponse(incarnation=replica.incarnation)

    async def close(self) -> None:
        """Closes its connections to lanes; planning that is under way goes on, and nobody hears of it."""
        self._planners.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))

    # --- pieces of the above ---

    def _planned(self, wanted: WantedModel, lines: "asyncio.Queue[str | None]") -> "asyncio.Future[Deployment]":
        """Plans in a thread; the queue gets what it tells, and None at the end."""
        loop = asyncio.get_running_loop()

        def tell(line: str | None) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        def ended(planning: "asyncio.Future[Deployment]") -> None:
            if not planning.cancelled():
                planning.exception()  # looked at, also where nobody waits for it any more
            lines.put_nowait(None)

        planning = loop.run_in_executor(self._planners, self._plan, wanted, tell)
        planning.add_done_callback(ended)
        return planning

    async def _check_context(self, planned: Deployment) -> None:
        """A request that no replica holds would wait at the head of its tenant's queue, and hold up all behind it."""
        before = self._records.values.get(planned.name)
        if before is None or before.lane != planned.lane or before.max_model_len <= planned.max_model_len:
            return
        row = next(row for row in await self._rows() if row.lane.lane == planned.lane)
        if row.lane.unfinished_requests:
            raise LaneNotEmptyError(
                f"{row.lane.unfinished_requests} requests of {planned.name} have not ended and may have up to "
                f"{before.max_model_len} tokens, but max_model_len is to be {planned.max_model_len}: wait until they "
                "have ended, or deploy the model under another name"
            )

    async def _change(self, name: str, decide: Callable[[Deployment | None], Deployment | None]) -> None:
        await self._records.change(name, decide)
        await self._notice()

    async def _rows(self) -> tuple[DeploymentRow, ...]:
        rows = (await observe(self._records, self._reports, self._look)).deployments
        for lane in self._queues.keys() - {row.lane.lane for row in rows}:
            await self._queues.pop(lane).close()
        return rows

    async def _look(self, lane: str) -> LaneView:
        return (await self._queue(lane).view()).value

    def _queue(self, lane: str) -> RequestQueue:
        if lane not in self._queues:
            self._queues[lane] = self._open_queue(lane)
        return self._queues[lane]

    async def _message(self, name: str) -> pb.Deployment:
        for row in await self._rows():
            if row.name == name and not row.is_former:
                return self._told(row)
        raise self._unknown(name)  # taken away a moment ago

    def _told(self, row: DeploymentRow) -> pb.Deployment:
        record = self._records.records[row.name]
        assert record.value is not None, "rows are of what is deployed"
        return deployment_message(record.value, row, changed_ms=record.revision)

    def _known(self, deployment: Deployment | None, name: str) -> Deployment:
        if deployment is None:
            raise self._unknown(name)
        return deployment

    def _no_more(self, deployment: Deployment | None, name: str) -> None:
        self._known(deployment, name)

    def _unknown(self, name: str) -> UnknownDeploymentError:
        known = ", ".join(sorted(self._records.values)) or "none"
        return UnknownDeploymentError(f"{name[:200]!r} is not deployed; deployed are: {known}")

    async def _ask_to_drain(self, lane: str, incarnation: str) -> None:
        await self._queue(lane).drain(incarnation)
        log.info("asked the replica %s of the lane %s to drain", incarnation, lane)


def _the_one(rows: tuple[DeploymentRow, ...], beginning: str) -> tuple[DeploymentRow, ReplicaRow]:
    """The only replica whose incarnation begins so."""
    if not beginning:
        raise invalid("incarnation", "is empty", "name a replica's incarnation, or an unambiguous beginning of it")
    found = [(row, r) for row in rows for r in row.replicas if r.incarnation.startswith(beginning)]
    if not found:
        raise UnknownReplicaError(
            f"no replica's incarnation begins with {beginning[:80]!r}: `shardline status` lists the replicas"
        )
    if len(found) > 1:
        several = ", ".join(replica.incarnation for _, replica in found)
        raise invalid("incarnation", f"is {beginning[:80]!r}", f"more than one begins so ({several}): give more of it")
    return found[0]
