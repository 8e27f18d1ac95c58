"""A lane in memory with a router that sweeps, and leaders with simulated engines, all on virtual time."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.answers import ClaimAnswer, CommitAnswer, Snapshot
from shardline_cluster.queue.calls import ClaimCall, CommitCall, Member, MemberRole
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.records import RequestEnd, Submission
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_driver import EngineDriver
from shardline_cluster.replica.leader import Leader, LeaderLimits
from shardline_cluster.replica.leader_telemetry import LeaderTelemetry
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.registration import Registration
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import Engine
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig
from shardline_workers.text.simulated_text import simulated_text_model
from tests.cluster.replica.queue_replies import submission
from tests.cluster.replica.virtual_time import VirtualStepThread

T = TypeVar("T")

LANE = "simulated-1"
PROMPT = "hello"


def simulated_submission(
    number: int,
    *,
    drawn: str,
    max_tokens: int,
    n: int = 1,
    stop: Sequence[str] = (),
    payload: bytes | None = None,
    num_logprobs: int | None = None,
    num_prompt_logprobs: int | None = None,
    timeout_ms: int | None = None,
) -> Submission:
    """A request for a simulated engine, its seed being its number."""
    record = RequestPayload(model="simulated", prompt_ids=list(PROMPT.encode()))
    record.sampling.seed = number
    record.sampling.stop.extend(stop)
    if num_logprobs is not None:
        record.sampling.logprobs = num_logprobs
    if num_prompt_logprobs is not None:
        record.sampling.prompt_logprobs = num_prompt_logprobs
    widths = [number for number in (num_logprobs, num_prompt_logprobs) if number is not None]
    has_prompt_log = num_prompt_logprobs is not None
    return dataclasses.replace(
        submission(f"{LANE}-{number:032x}", n=n + has_prompt_log, num_logprobs=max(widths, default=None)),
        payload=record.SerializeToString() if payload is None else payload,
        drawn=drawn,
        prompt_tokens=len(PROMPT),
        max_tokens=max_tokens,
        timeout_ms=timeout_ms,
        max_queue_ms=3_600_000,
        grace_ms=3_600_000,
        retention_ms=600_000,
    )


class LeaderQueue(MemoryRequestQueue):
    """One leader's way to the queue: keeps its calls, and can be told to fail."""

    def __init__(self, server: MemoryServer, lane: str) -> None:
        super().__init__(server, lane)
        self.commits: list[CommitCall] = []
        self.claims: list[ClaimCall] = []
        self.lose_one_in: int | None = None  # of its replies
        self.runs_late_copies = False  # a second copy of each call arrives after the next one
        self._num_calls = 0
        self._copy: Callable[[MemoryLane], object] | None = None

    async def _run(self, script: Callable[[MemoryLane], T]) -> Reply[T]:
        reply = await super()._run(script)
        self._num_calls += 1
        if self.runs_late_copies and self._copy is not None:
            self._server.run(LANE, self._copy)
        self._copy = script
        if self.lose_one_in and self._num_calls % self.lose_one_in == 0:
            raise QueueUnavailableError("the reply was lost")
        return reply

    async def commit(self, call: CommitCall) -> Reply[CommitAnswer]:
        self.commits.append(call)
        return await super().commit(call)

    async def claim(self, call: ClaimCall) -> Reply[ClaimAnswer]:
        self.claims.append(call)
        return await super().claim(call)


@dataclasses.dataclass
class RunningLeader:
    """A leader with its task and what can be done to it."""

    queue: LeaderQueue
    thread: VirtualStepThread
    engine: Engine
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    async def kill(self) -> None:
        """As SIGKILL: nothing is handed back."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class SimulatedLane:
    """One lane and everybody around it."""

    def __init__(self, terms: QueueTerms | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.terms = terms or QueueTerms()
        self.server = MemoryServer(self.terms, now_ms=lambda: 1_000_000 + int(loop.time() * 1000))
        self.queue = MemoryRequestQueue(self.server, LANE)
        self._num_requests = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, terms: QueueTerms | None = None) -> "AsyncIterator[SimulatedLane]":
        """A lane whose router sweeps until the end of the block."""
        lane = cls(terms)
        await lane.queue.register(Member(incarnation="router-1", role=MemberRole.ROUTER))
        sweeping = asyncio.create_task(lane._sweep())
        try:
            yield lane
        finally:
            sweeping.cancel()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.terms.sweep_ms / 1000)
            with contextlib.suppress(Exception):
                await self.queue.sweep("router-1")

    def lead(
        self,
        incarnation: str = "leader-1",
        config: SimulatedEngineConfig | None = None,
        *,
        limits: LeaderLimits | None = None,
        telemetry: LeaderTelemetry | None = None,
        wrap: Callable[[SimulatedEngine], Engine] = lambda engine: engine,
    ) -> RunningLeader:
        """Starts a leader with a simulated engine."""
        thread, queue, stop = VirtualStepThread(), LeaderQueue(self.server, LANE), asyncio.Event()
        engine = wrap(SimulatedEngine(config or SimulatedEngineConfig(), sleep=thread.sleep))
        watch = ProgressWatch(least_limit_s=5.0)
        leader = Leader(
            queue,
            Registration(queue, self.spec(incarnation)),
            driver=EngineDriver(engine, thread, watch),
            watch=watch,
            text=simulated_text_model(4096),
            incarnation=incarnation,
            limits=limits,
            telemetry=telemetry,
        )
        return RunningLeader(queue, thread, engine, stop, asyncio.create_task(leader.run(stop)))

    async def submit(
        self,
        *,
        max_tokens: int = 8,
        n: int = 1,
        stop: Sequence[str] = (),
        payload: bytes | None = None,
        num_logprobs: int | None = None,
        num_prompt_logprobs: int | None = None,
        timeout_ms: int | None = None,
    ) -> str:
        """Submits a request; returns its id."""
        self._num_requests += 1
        request = simulated_submission(
            self._num_requests,
            drawn=self.server.identity,
            max_tokens=max_tokens,
            n=n,
            stop=stop,
            payload=payload,
            num_logprobs=num_logprobs,
            num_prompt_logprobs=num_prompt_logprobs,
            timeout_ms=timeout_ms,
        )
        await self.queue.submit("router-1", 1, request)
        return request.id

    async def look(self, request_id: str) -> Snapshot:
        """The request as it is now."""
        reply = await self.queue.look(request_id, "tenant")
        assert isinstance(reply.value, Snapshot)
        return reply.value

    async def ids(self, request_id: str, sequence: int = 0) -> tuple[int, ...]:
        """Token ids in the log."""
        return unpack_ids((await self.look(request_id)).logs[sequence].ids)

    async def end(self, request_id: str, *, within_s: float = 60.0) -> RequestEnd:
        """Waits for the end of a request."""

        async def ended() -> bool:
            return (await self.look(request_id)).end is not None

        await self.until(ended, within_s=within_s)
        end = (await self.look(request_id)).end
        assert end is not None
        return end

    async def until(self, true: Callable[[], Awaitable[bool]], *, within_s: float = 60.0) -> None:
        """Waits until something is so."""
        async with asyncio.timeout(within_s):
            while not await true():  # noqa: ASYNC110 - the queue has no event for it
                await asyncio.sleep(0.01)

    async def grows_to(self, request_id: str, num_tokens: int) -> None:
        """Waits until the log is at least so long."""

        async def long_enough() -> bool:
            return len(await self.ids(request_id)) >= num_tokens

        await self.until(long_enough)

    def spec(self, incarnation: str) -> ReplicaSpec:
        """What a replica of this lane is told at birth."""
        deployment = Deployment(name="simulated", model="simulated", lane=LANE, weights_digest="00", max_model_len=4096)
        return ReplicaSpec(
            deployment=deployment,
            replica="simulated-0",
            incarnation=incarnation,
            redis_url="",
            prefix="",
            terms=self.terms,
        )
