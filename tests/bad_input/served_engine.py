"""A whole cluster in one process: a router on loopback, the queue in memory, a leader, and the real engine on a tiny
model. Beside the model that is served there are deployments of the same weights with other chat templates."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

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
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.sharded_engine import EngineConfig, load_engine
from shardline_workers.text.generation_config import GenerationConfig
from shardline_workers.text.jinja_chat_template import JinjaChatTemplate
from shardline_workers.text.load_text_model import load_text_model
from shardline_workers.text.text_model import TextModel
from tests.bad_input.tiny_model import TEMPLATE, write_tiny_model
from tests.cluster.fleet.deploying import deploy
from tests.cluster.router.router_bench import RouterBench, RunningRouter, read_all

MODEL = "tiny"
CONTEXT = 128
MAX_NUM_SEQS = 8
DIGEST = "0123456789abcdef"
TEMPLATE_LIMIT_S = 0.3
# Deployments of the same model that nobody should ever make, by name.
TEMPLATES: Mapping[str, str | None] = {
    MODEL: TEMPLATE,
    "base": None,
    "looping": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "growing": "{% set ns = namespace(x='x' * 1000) %}{% for _ in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "multiplying": "{{ 'x' * 10000000000 }}",
    "reading-classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reading-globals": "{{ raise_exception.__globals__['signal'] }}",
    "importing": "{% include '/etc/passwd' %}",
    "raising": "{{ raise_exception('roles must alternate') }}",
    "dividing": "{{ 1 / 0 }}",
}


@dataclasses.dataclass(slots=True)
class ServedEngine:
    """What a test may look at."""

    router: RunningRouter
    engine: Engine
    driver: EngineDriver
    leading: "asyncio.Task[None]"
    empty: Capacity

    async def answer(self, request: pb.GenerateRequest) -> list[pb.GenerateEvent]:
        """All events of a request."""
        events = await asyncio.wait_for(read_all(self.router.stub.Generate(request)), 30)
        assert events[-1].finished.state == pb.REQUEST_STATE_DONE, events[-1]
        return events

    async def rests(self) -> bool:
        """Whether nothing is held any more: slots and KV blocks are all free, and the books add up."""
        for _ in range(200):
            assert not self.leading.done(), "the leader is gone"
            if not self.driver.has_orders and self.driver.room[0] == self.empty and not self.engine.has_work():
                self.engine.check_integrity()
                return True
            await asyncio.sleep(0.01)
        return False


@asynccontextmanager
async def serve_tiny_model(folder: Path) -> AsyncIterator[ServedEngine]:
    """Serves it until the end of the block."""
    files = ModelFiles(source=MODEL, kind=ModelKind.FOLDER, path=write_tiny_model(folder), digest=DIGEST)
    plain = load_text_model(files, name=MODEL, chat_template=None, generation_config=GenerationConfig.NONE)
    bench = RouterBench(QueueTerms.short())
    bench.load = lambda deployment: _text(plain, deployment.name)
    for name in TEMPLATES:
        await deploy(bench.store, _deployment(name))
    router = await bench.start_router()
    engine = load_engine(
        EngineConfig(
            files=files,
            dtype="float64",
            max_model_len=CONTEXT,
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=64,
            kv_cache_tokens=MAX_NUM_SEQS * CONTEXT,
            block_size=8,
            replicas_on_host=64,
        ),
        report=lambda _: None,
    )
    stop, thread, watch = asyncio.Event(), DaemonStepThread(), ProgressWatch(least_limit_s=30.0)
    queue = bench.queue(_lane(MODEL))
    bench.skew_ms += bench.server.terms.hold_ms
    driver = EngineDriver(engine, thread, watch)
    spec = ReplicaSpec(
        deployment=_deployment(MODEL),
        replica=f"{MODEL}-0",
        incarnation="leader-1",
        redis_url="",
        prefix="",
        terms=bench.server.terms,
    )
    registration = Registration(queue, spec)
    registration.describe(engine.description)
    leader = Leader(queue, registration, driver=driver, watch=watch, text=plain, incarnation="leader-1")
    leading = asyncio.create_task(leader.run(stop))
    try:
        yield ServedEngine(router, engine, driver, leading, engine.capacity())
    finally:
        stop.set()
        await asyncio.wait_for(leading, 20)
        await bench.close()
        thread.close()


def _text(plain: TextModel, name: str) -> TextModel:
    source = TEMPLATES[name]
    template = None if source is None else JinjaChatTemplate(source, time_limit_s=TEMPLATE_LIMIT_S)
    return dataclasses.replace(plain, name=name, chat_template=template)


def _lane(name: str) -> str:
    return f"{name}-1"


def _deployment(name: str) -> Deployment:
    return Deployment(
        name=name,
        model=name,
        lane=_lane(name),
        weights_digest=DIGEST,
        max_model_len=CONTEXT,
        options=EngineOptions(max_num_seqs=MAX_NUM_SEQS),
    )
