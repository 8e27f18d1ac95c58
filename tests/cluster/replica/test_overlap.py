"""What the leader does while a step runs: it claims, looks for stop strings, commits, and plans the step that follows.

The engine's steps stand still in a real thread until the test lets them go, so nothing here can happen between steps.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.memory_exporters import MemoryExporterList
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import Member, MemberRole
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.records import RequestState
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_choice import LoadedModel
from shardline_cluster.replica.replica_process import run_replica
from shardline_workers.engine import StepResult
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig, SimulatedStepTimes
from shardline_workers.simulated_tokens import TokenMode
from shardline_workers.text.simulated_text import simulated_text_model
from tests.cluster.replica.simulated_lane import LANE, simulated_submission

LIMIT_S = 20.0  # of a wait that a bug would make endless
WARM_UP_STEPS = 2
TEXT = "one, two, three, four, five"


class HeldEngine(SimulatedEngine):
    """Each step waits inside for the test, as a forward pass that takes its time."""

    def __init__(self) -> None:
        times = SimulatedStepTimes(step_s=0.0, sequence_s=0.0, prefill_token_s=0.0)
        super().__init__(SimulatedEngineConfig(tokens=TokenMode.REPLAY, replay_text=TEXT, times=times))
        self.is_held = False
        self.num_begun = 0
        self._go = threading.Semaphore(0)

    def step(self) -> StepResult:
        """One step, as soon as the test lets it go; probes of an idle engine do not count."""
        if self.is_held and self.has_work():
            self.num_begun += 1
            assert self._go.acquire(timeout=LIMIT_S), "the test forgot a step"
        return super().step()

    def let_go(self) -> None:
        """The step under way ends."""
        self._go.release()

    def let_all_go(self) -> None:
        """No step waits from now on."""
        self.is_held = False
        self._go.release()


class HeldReplica:
    """A replica whose engine is held, and its lane."""

    def __init__(self) -> None:
        self.engine = HeldEngine()
        self.server = MemoryServer(QueueTerms())
        self.queue = MemoryRequestQueue(self.server, LANE)

    async def submit(self, number: int, *, stop: tuple[str, ...] = ()) -> str:
        """A request of 20 tokens."""
        request = simulated_submission(number, drawn=self.server.identity, max_tokens=20, stop=stop)
        await self.queue.submit("router-1", 1, request)
        return request.id

    async def shows(self, request_id: str, wanted: Callable[[Snapshot], bool]) -> Snapshot:
        """Waits until the queue shows a request as it is wanted."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = (await self.queue.look(request_id, "tenant")).value
                assert isinstance(found, Snapshot)
                if wanted(found):
                    return found
                await asyncio.sleep(0.002)

    async def step_begins(self, number: int) -> None:
        """Waits until this step, counted from 1, stands still inside the engine."""
        async with asyncio.timeout(LIMIT_S):
            while self.engine.num_begun < number:  # noqa: ASYNC110 - by another thread
                await asyncio.sleep(0.002)


@asynccontextmanager
async def held_replica() -> AsyncIterator[HeldReplica]:
    held, stop = HeldReplica(), asyncio.Event()
    await held.queue.register(Member(incarnation="router-1", role=MemberRole.ROUTER))
    deployment = Deployment(
        name="held",
        model="simulated",
        lane=LANE,
        weights_digest="00",
        max_model_len=4096,
        options=EngineOptions(engine="simulated"),
    )
    spec = ReplicaSpec(
        deployment=deployment,
        replica="held-0",
        incarnation="leader-1",
        redis_url="unix:///nowhere",
        prefix="p",
        terms=held.server.terms,
        step_limit_s=2 * LIMIT_S,
    )
    held.engine.is_held = True
    loaded = LoadedModel(held.engine, simulated_text_model(4096))
    life = asyncio.create_task(
        run_replica(
            spec,
            stop=stop,
            queue_factory=lambda _: held.queue,
            exporters_factory=lambda _: MemoryExporterList(),
            model_loader=lambda *_: loaded,
        )
    )
    for _ in range(WARM_UP_STEPS):
        held.engine.let_go()
    try:
        yield held
    finally:
        stop.set()
        held.engine.let_all_go()
        await asyncio.wait_for(life, LIMIT_S)


async def test_a_steps_tokens_are_committed_while_the_next_step_runs() -> None:
    async with held_replica() as held:
        request_id = await held.submit(1)
        for number in (1, 2, 3):
            await held.step_begins(WARM_UP_STEPS + number)
            held.engine.let_go()

        await held.step_begins(WARM_UP_STEPS + 4)
        await held.shows(request_id, lambda found: found.logs[0].num_tokens == 3)

        assert held.engine.num_begun == WARM_UP_STEPS + 4


async def test_a_request_is_claimed_while_a_step_runs() -> None:
    async with held_replica() as held:
        await held.submit(1)
        await held.step_begins(WARM_UP_STEPS + 1)

        late = await held.submit(2)
        claimed = await held.shows(late, lambda found: found.state is RequestState.RUNNING)

        assert held.engine.num_begun == WARM_UP_STEPS + 1
        assert claimed.logs[0].num_tokens == 0


async def test_a_stop_string_ends_its_request_while_the_next_step_runs() -> None:
    async with held_replica() as held:
        other = await held.submit(1)
        await held.step_begins(WARM_UP_STEPS + 1)
        stopped = await held.submit(2, stop=("ne",))
        await held.shows(stopped, lambda found: found.state is RequestState.RUNNING)

        for num_done in range(1, 8):
            held.engine.let_go()
            await held.step_begins(WARM_UP_STEPS + num_done + 1)
            await held.shows(other, lambda found, number=num_done: found.logs[0].num_tokens == number)  # type: ignore[misc]
            found = await held.shows(stopped, lambda _: True)
            if found.end is not None:
                break

        assert held.engine.num_begun == WARM_UP_STEPS + num_done + 1
        assert found.state is RequestState.DONE
        assert found.logs[0].num_tokens == 3
