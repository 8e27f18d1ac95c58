"""A replica tells every stage of its life, keeps its lease while it loads, and ends with an honest word."""

import asyncio
from collections.abc import Callable

import pytest

from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.memory_exporters import MemoryExporterList
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.calls import Member
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue
from shardline_cluster.queue.memory_server import MemoryServer
from shardline_cluster.queue.records import RequestState
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_choice import LoadedModel, Report, load_model
from shardline_cluster.replica.replica_process import ModelLoader, ReplicaExit, run_replica
from shardline_workers.engine import StepResult
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig
from shardline_workers.text.simulated_text import simulated_text_model
from tests.cluster.replica.simulated_lane import LANE, SimulatedLane
from tests.cluster.replica.virtual_time import VirtualStepThread, run_virtually


class HeardQueue(MemoryRequestQueue):
    """Keeps what was registered."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, LANE)
        self.statuses: list[ReplicaStatus] = []

    async def register(self, member: Member) -> Reply[None]:
        self.statuses.append(from_json(ReplicaStatus, member.status))
        return await super().register(member)

    @property
    def states(self) -> list[ReplicaState]:
        """The stages in order, without repeats."""
        told = [status.state for status in self.statuses]
        return [state for i, state in enumerate(told) if i == 0 or told[i - 1] is not state]


def _spec(*, warm_up_limit_s: float = 300.0, **options: object) -> ReplicaSpec:
    return ReplicaSpec(
        deployment=Deployment(
            name="simulated",
            model="simulated",
            lane=LANE,
            weights_digest="00",
            max_model_len=4096,
            options=EngineOptions(engine="simulated", **options),  # type: ignore[arg-type]
        ),
        replica="simulated-0",
        incarnation="leader-1",
        redis_url="unix:///nowhere",
        prefix="p",
        terms=QueueTerms(),
        warm_up_limit_s=warm_up_limit_s,
    )


class RunningReplica:
    """A replica's life as a task, with a simulated engine on virtual time."""

    def __init__(
        self,
        lane: SimulatedLane,
        *,
        wrap: Callable[[SimulatedEngine], SimulatedEngine] = lambda engine: engine,
        loading_s: float = 0.0,
        warm_up_limit_s: float = 300.0,
    ) -> None:
        self.queue = HeardQueue(lane.server)
        self.stop = asyncio.Event()
        thread = VirtualStepThread()

        def load(spec: ReplicaSpec, report: Report) -> LoadedModel:
            thread.sleep(loading_s)
            engine = SimulatedEngine(SimulatedEngineConfig(), sleep=thread.sleep)
            return LoadedModel(wrap(engine), simulated_text_model(4096))

        loader: ModelLoader = load
        spec = _spec(warm_up_limit_s=warm_up_limit_s)
        self.life: asyncio.Task[ReplicaExit] = asyncio.create_task(
            run_replica(
                spec,
                stop=self.stop,
                queue_factory=lambda _: self.queue,
                exporters_factory=lambda _: MemoryExporterList(),
                model_loader=loader,
                thread=thread,
            )
        )


def test_it_loads_warms_up_serves_drains_and_stops() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            replica = RunningReplica(lane, loading_s=1.0)
            request_id = await lane.submit()
            await lane.end(request_id)
            unfinished = await lane.submit(max_tokens=4000)
            await lane.grows_to(unfinished, 3)

            replica.stop.set()
            end = await replica.life

            assert end == ReplicaExit(had_drained=True)
            assert replica.queue.states == [
                ReplicaState.LOADING,
                ReplicaState.WARMING,
                ReplicaState.READY,
                ReplicaState.DRAINING,
                ReplicaState.STOPPED,
            ]
            assert replica.queue.statuses[-1].details["engine"] == "simulated"
            assert (await lane.look(unfinished)).state is RequestState.WAITING

    run_virtually(test())


def test_it_keeps_its_lease_while_a_big_model_loads() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            RunningReplica(lane, loading_s=100.0)
            for _ in range(9):
                await asyncio.sleep(10)

                (leader,) = (await lane.queue.view()).value.leaders
                assert from_json(ReplicaStatus, leader.status).state is ReplicaState.LOADING
                assert leader.lease_ends_ms > (await lane.queue.view()).now_ms

    run_virtually(test())


@pytest.mark.parametrize("loading_s", [0.0, 1000.0])
def test_told_to_stop_before_it_is_ready_it_ends_at_once_and_cleanly(loading_s: float) -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            replica = RunningReplica(lane, loading_s=loading_s)
            await asyncio.sleep(0)

            replica.stop.set()
            async with asyncio.timeout(5):
                end = await replica.life

            assert end.had_drained
            assert replica.queue.states[-1] is ReplicaState.STOPPED

    run_virtually(test())


def test_a_model_that_cannot_be_loaded_is_told_with_its_reason() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:

            def wrap(_: SimulatedEngine) -> SimulatedEngine:
                raise OSError("no such file")

            replica = RunningReplica(lane, wrap=wrap)
            end = await replica.life

            assert end == ReplicaExit(had_drained=False, reason="OSError: no such file")
            assert replica.queue.states == [ReplicaState.LOADING, ReplicaState.FAILED]
            assert replica.queue.statuses[-1].reason == end.reason

    run_virtually(test())


class SlowFirstStep(SimulatedEngine):
    """Takes an hour to warm up."""

    def __init__(self, engine: SimulatedEngine) -> None:
        super().__init__(engine._config, sleep=engine._sleep)

    def step(self) -> StepResult:
        self._sleep(3600)
        return super().step()


def test_a_warm_up_over_its_limit_fails() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            replica = RunningReplica(lane, wrap=SlowFirstStep, warm_up_limit_s=60.0)

            end = await replica.life

            assert end == ReplicaExit(had_drained=False, reason="warming up took longer than its limit of 60 s")
            assert replica.queue.states[-1] is ReplicaState.FAILED

    run_virtually(test())


class DyingEngine(SimulatedEngine):
    """Dies with its tenth step."""

    def __init__(self, engine: SimulatedEngine) -> None:
        super().__init__(engine._config, sleep=engine._sleep)
        self._num_steps = 0

    def step(self) -> StepResult:
        self._num_steps += 1
        if self._num_steps == 10:
            raise RuntimeError("the device is gone")
        return super().step()


def test_a_failure_while_serving_does_not_renew_the_lease_of_what_it_holds() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            replica = RunningReplica(lane, wrap=DyingEngine)
            request_id = await lane.submit(max_tokens=100)

            end = await replica.life
            lane.lead("leader-2")
            done = await lane.end(request_id)

            assert end == ReplicaExit(had_drained=False, reason="a step failed: RuntimeError: the device is gone")
            assert replica.queue.states[-1] is ReplicaState.READY
            assert done.offsets == (100,)

    run_virtually(test())


async def test_it_lives_with_a_thread_of_its_own_and_the_engine_that_the_options_name() -> None:
    server = MemoryServer()
    queue, stop = HeardQueue(server), asyncio.Event()
    life = asyncio.create_task(
        run_replica(
            _spec(simulated_step_s=0.001),
            stop=stop,
            queue_factory=lambda _: queue,
            exporters_factory=lambda _: MemoryExporterList(),
            model_loader=load_model,
        )
    )
    while ReplicaState.READY not in queue.states:  # noqa: ASYNC110 - a real thread, and no event for it
        await asyncio.sleep(0.005)

    stop.set()
    end = await life

    assert end == ReplicaExit(had_drained=True)
    assert queue.statuses[-1].pid > 0
