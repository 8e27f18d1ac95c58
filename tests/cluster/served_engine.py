"""A whole cluster in one process: a router on loopback, the queue in memory, a leader, and a real engine."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_driver import EngineDriver
from shardline_cluster.replica.leader import Leader
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.registration import Registration
from shardline_cluster.replica.step_thread import DaemonStepThread
from shardline_protos import generation_pb2 as pb
from shardline_workers.engine import Capacity, Engine
from shardline_workers.text.text_model import TextModel
from tests.cluster.fleet.deploying import deploy
from tests.cluster.router.router_bench import RouterBench, RunningRouter, read_all

DIGEST = "0123456789abcdef"
PATIENCE_S = 120.0  # of a test, with an answer or with what must come to rest


@dataclass(slots=True)
class ServedEngine:
    """What a test may look at."""

    bench: RouterBench
    router: RunningRouter
    engine: Engine
    driver: EngineDriver
    leading: "asyncio.Task[None]"
    empty: Capacity  # before anything was asked

    async def answer(self, request: pb.GenerateRequest) -> list[pb.GenerateEvent]:
        """All events of a request that ends well."""
        events = await asyncio.wait_for(read_all(self.router.stub.Generate(request)), PATIENCE_S)
        assert events[-1].finished.state == pb.REQUEST_STATE_DONE, events[-1]
        return events

    async def comes_to_rest(self) -> bool:
        """Whether soon nothing is held any more: slots and KV blocks are all free, and the engine's books add up."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < deadline:
            assert not self.leading.done(), "the leader is gone"
            if not self.driver.has_orders and not self.engine.has_work() and self.driver.room[0] == self.empty:
                self.engine.check_integrity()
                return True
            await asyncio.sleep(0.01)
        return False


@asynccontextmanager
async def serve_engine(engine: Engine, texts: Mapping[str, TextModel], *, led: str) -> AsyncIterator[ServedEngine]:
    """Serves models of these names until the end of the block; the engine computes for `led` alone."""
    description = engine.description
    bench = RouterBench(QueueTerms.short())
    bench.load = lambda deployment: texts[deployment.name]
    deployments = {
        name: _deployment(name, max_model_len=description.max_model_len, max_num_seqs=description.max_num_seqs)
        for name in texts
    }
    for deployment in deployments.values():
        await deploy(bench.store, deployment)
    bench.skew_ms += bench.server.terms.hold_ms
    router = await bench.start_router()
    stop, thread, watch = asyncio.Event(), DaemonStepThread(), ProgressWatch(least_limit_s=PATIENCE_S)
    driver = EngineDriver(engine, thread, watch)
    queue = bench.queue(deployments[led].lane)
    registration = Registration(queue, _spec(deployments[led], bench.server.terms))
    registration.describe(description)
    leader = Leader(queue, registration, driver=driver, watch=watch, text=texts[led], incarnation="leader-1")
    leading = asyncio.create_task(leader.run(stop))
    try:
        yield ServedEngine(bench, router, engine, driver, leading, engine.capacity())
    finally:
        stop.set()
        await asyncio.wait_for(leading, PATIENCE_S)
        await bench.close()
        thread.close()


def _deployment(name: str, *, max_model_len: int, max_num_seqs: int) -> Deployment:
    return Deployment(
        name=name,
        model=name,
        lane=f"{name}-1",
        weights_digest=DIGEST,
        max_model_len=max_model_len,
        options=EngineOptions(max_num_seqs=max_num_seqs),
    )


def _spec(deployment: Deployment, terms: QueueTerms) -> ReplicaSpec:
    return ReplicaSpec(
        deployment=deployment,
        replica=f"{deployment.name}-0",
        incarnation="leader-1",
        redis_url="",
        prefix="",
        terms=terms,
    )
