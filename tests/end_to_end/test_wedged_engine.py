"""An engine that hangs in a step: its model is NOT_SERVING soon, and its request waits for another replica."""

import asyncio
import threading
import time
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from shardline_cluster.fleet.memory_exporters import MemoryExporterList
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.records import RequestState
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_choice import LoadedModel
from shardline_cluster.replica.replica_process import run_replica
from shardline_workers.engine import StepResult
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig
from shardline_workers.text.simulated_text import simulated_text_model
from tests.cluster.router.router_bench import CONTEXT, MODEL, RouterBench, deployment, next_of_kind, open_bench, request

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STEP_LIMIT_S = 0.5
HANGS_AT = 6  # steps, those of the warm-up included


class HangingEngine(SimulatedEngine):
    """Computes some steps, then never comes back from one, until the test is over."""

    def __init__(self) -> None:
        super().__init__(SimulatedEngineConfig(max_model_len=CONTEXT), sleep=lambda _: time.sleep(0.001))
        self.let_go = threading.Event()
        self._num_steps = 0

    def step(self) -> StepResult:
        self._num_steps += 1
        if self._num_steps == HANGS_AT:
            self.let_go.wait(60)
        return super().step()


def _spec(bench: RouterBench) -> ReplicaSpec:
    return ReplicaSpec(
        deployment=deployment(),
        replica="bytes-1-0",
        incarnation="hanging",
        redis_url="",
        prefix="",
        terms=bench.server.terms,
        step_limit_s=STEP_LIMIT_S,
    )


async def _look(bench: RouterBench, request_id: str) -> Snapshot:
    found = (await bench.queue().look(request_id, "default")).value
    assert isinstance(found, Snapshot)
    return found


async def test_a_step_over_its_limit_takes_the_model_out_of_service_and_gives_its_request_back() -> None:
    engine = HangingEngine()
    async with open_bench(QueueTerms.short()) as bench:  # the lease that its request waits for is short
        router = await bench.start_router()
        stub: Any = HealthStub(router.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=MODEL))
        replica = asyncio.create_task(
            run_replica(
                _spec(bench),
                stop=asyncio.Event(),
                queue_factory=lambda _: bench.queue(),
                exporters_factory=lambda _: MemoryExporterList(),
                model_loader=lambda *_: LoadedModel(engine, simulated_text_model(CONTEXT)),
            )
        )
        while (await watch.read()).status != SERVING:
            pass

        stream = router.stub.Generate(request(sampling={"max_tokens": 50}))
        tokens = await next_of_kind(stream, "tokens")
        asked_s = time.monotonic()
        status = (await watch.read()).status
        took_s = time.monotonic() - asked_s
        end = await replica
        while (found := await _look(bench, tokens.request_id)).state is RequestState.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # until the router has swept

        print(f"NOT_SERVING {took_s:.1f} s after the first token; the step's limit is {STEP_LIMIT_S} s")
        stream.cancel()
        watch.cancel()
        engine.let_go.set()

    assert status == NOT_SERVING
    assert not end.had_drained
    assert f"a step took longer than its limit of {STEP_LIMIT_S} s" in end.reason
    assert found.state is RequestState.WAITING
    assert found.logs[0].num_tokens >= 1
