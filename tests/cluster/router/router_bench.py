"""Whole routers on loopback ports over one queue in memory, past its first hold, with a scripted leader.

The model is the simulated engine's: one id a byte, so that a test commits text by its bytes.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from shardline_cluster.access.gate import Gate
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.access.open_gate import OpenGate
from shardline_cluster.access.rate_limiter import RateLimiter
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.deployment_plan import plan_deployment
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.memory_fleet_report import MemoryFleetReportStore
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.queue.answers import CommitCode
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.admin.administration import Administration
from shardline_cluster.router.admin.deployment_administration import DeploymentAdministration
from shardline_cluster.router.admin.key_administration import KeyAdministration
from shardline_cluster.router.admin.usage_administration import UsageAdministration
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_server import RouterServer
from shardline_cluster.router.router_telemetry import RouterTelemetry
from shardline_cluster.router.streams.token_streams import TokenStreams
from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationStub
from shardline_workers.text.simulated_text import simulated_text_model
from shardline_workers.text.text_model import SamplingDefaults, TextModel
from tests.cluster.fleet.deploying import deploy
from tests.cluster.router.scripted_leader import ScriptedLeader

LANE = "bytes-1"
MODEL = "bytes"
CONTEXT = 4096
# On the wall clock: a scripted leader, which renews nothing by itself, is not taken for dead because a machine is slow.
TERMS = dataclasses.replace(QueueTerms.short(), lease_ms=60_000)


@dataclass(slots=True)
class RunningRouter:
    """A router and a client's channel to it."""

    server: RouterServer
    port: int
    channel: grpc.aio.Channel
    stub: Any

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop()


class RouterBench:
    """What several routers share."""

    def __init__(self, terms: QueueTerms) -> None:
        self.skew_ms = 0
        self.server = MemoryServer(terms, now_ms=lambda: time.time_ns() // 1_000_000 + self.skew_ms)
        self.store = MemoryRecordStore[Deployment]()
        self.telemetry: RouterTelemetry | None = None  # of the next router
        self.defaults = SamplingDefaults()  # of the model
        self.load: Callable[[Deployment], TextModel] = self._simulated_text
        self.leader = ScriptedLeader(self.queue())
        self._routers: list[RunningRouter] = []

    def _simulated_text(self, deployment: Deployment) -> TextModel:
        return dataclasses.replace(simulated_text_model(deployment.max_model_len), defaults=self.defaults)

    def queue(self, lane: str = LANE) -> MemoryRequestQueue:
        return MemoryRequestQueue(self.server, lane)

    async def deploy(self, name: str = MODEL, lane: str = LANE) -> None:
        await deploy(self.store, deployment(name, lane))

    async def past_the_hold(self) -> None:
        await self.queue().view()
        self.skew_ms += self.server.terms.hold_ms

    async def start_router(
        self, keyring: Keyring | None = None, *, gate: Gate | None = None, limiter: RateLimiter | None = None
    ) -> RunningRouter:
        """One that lets everybody in, or asks a gate, or asks for keys and has an Admin service."""
        records = KeptRecords(self.store)
        directory = ModelDirectory(
            records,
            open_queue=self.queue,
            load=lambda deployment: self.load(deployment),
            incarnation=f"router-{len(self._routers)}",
        )
        config = RouterConfig(port=0, redis_url="", terms=self.server.terms, cache_folder="")
        await directory.refresh()
        server = RouterServer(
            config,
            directory,
            gate or (keyring.gate if keyring else OpenGate()),
            administration=None if keyring is None else self._administration(records, directory, keyring),
            limiter=limiter,
            telemetry=self.telemetry,
        )
        port = await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        stub = GenerationStub(channel)  # type: ignore[no-untyped-call]
        router = RunningRouter(server, port, channel, stub)
        self._routers.append(router)
        for served in directory.deployments().values():
            found = directory.served(served)
            assert found is not None, "a model of bytes is loaded at once"
            await available(found.lane.streams)
        return router

    def _administration(
        self, records: KeptRecords[Deployment], directory: ModelDirectory, keyring: Keyring
    ) -> Administration:
        deployments = DeploymentAdministration(
            records,
            MemoryFleetReportStore(),
            open_queue=self.queue,
            plan=lambda wanted, say: plan_deployment(wanted, cache_folder=Path("/nowhere"), say=say),
            notice=directory.refresh,
            cluster="default",
        )
        return Administration(
            deployments=deployments,
            keys=KeyAdministration(keyring),
            usage=UsageAdministration(self.server.counted_lanes, self.queue),
        )

    async def close(self) -> None:
        for router in self._routers:
            await router.stop()

    async def claim(self) -> str:
        """Claims until there is a request; returns its id."""
        granted = await self.leader.claim()
        assert len(granted) == 1, granted
        return granted[0].info.id

    async def say(self, request_id: str, text: str | bytes, **changes: Any) -> None:
        """Commits a text byte by byte, in one step."""
        ids = tuple(text.encode() if isinstance(text, str) else text)
        code = await self.leader.commit(request_id, ids, **changes)
        assert code in (CommitCode.OK, CommitCode.HELD), code


def deployment(name: str = MODEL, lane: str = LANE, **changes: Any) -> Deployment:
    """A deployment of the simulated engine."""
    fields: dict[str, Any] = {
        "name": name,
        "model": "simulated",
        "lane": lane,
        "weights_digest": "00",
        "max_model_len": CONTEXT,
        "options": EngineOptions(engine="simulated"),
    }
    return Deployment(**(fields | changes))


@asynccontextmanager
async def open_bench(terms: QueueTerms | None = None) -> AsyncIterator[RouterBench]:
    """A bench with one deployed model, past the hold; all routers stop at its end."""
    bench = RouterBench(terms or TERMS)
    await bench.deploy()
    await bench.past_the_hold()
    try:
        yield bench
    finally:
        await bench.close()


def request(text: str = "hi", **changes: Any) -> pb.GenerateRequest:
    """A request for text."""
    return pb.GenerateRequest(text=text, **changes)


async def next_of_kind(stream: Any, kind: str) -> pb.GenerateEvent:
    """Reads on to the next event of a kind."""
    async for event in stream:
        if event.WhichOneof("event") == kind:
            assert isinstance(event, pb.GenerateEvent)
            return event
    raise AssertionError(f"the stream ended without an event of kind {kind}")


async def read_all(stream: Any) -> list[pb.GenerateEvent]:
    """Everything to the end."""
    return [event async for event in stream]


def text_of(events: Sequence[pb.GenerateEvent], sequence: int = 0) -> str:
    """The text of one sequence."""
    return "".join(e.tokens.text for e in events if e.HasField("tokens") and e.tokens.sequence == sequence)


def kinds(events: Sequence[pb.GenerateEvent]) -> list[str]:
    """Kinds of events in order."""
    return [str(event.WhichOneof("event")) for event in events]


async def available(streams: TokenStreams) -> None:
    """Waits until the queue has answered."""
    deadline = time.monotonic() + 20
    while not streams.available:
        assert time.monotonic() < deadline, "the queue does not answer"
        await asyncio.sleep(0.005)
