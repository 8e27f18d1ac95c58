"""Many clients of a real model at once: everyone gets what he would have got alone, and nothing is left behind."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationStub
from shardline_workers.engine import Engine
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.text.generation_config import GenerationConfig
from shardline_workers.text.load_text_model import load_text_model
from tests.cluster.served_engine import DIGEST, PATIENCE_S, ServedEngine, serve_engine
from tests.end_to_end.counted_prefills import CountedPrefills
from tests.end_to_end.mixed_requests import MODEL, Behaviour, MixedRequest, mixed_requests
from tests.parity.smollm2_file import smollm2_gguf

pytestmark = [pytest.mark.model, pytest.mark.slow]

NUM_CLIENTS = int(os.environ.get("SHARDLINE_MANY_CLIENTS", "64"))
FIRST_TOKENS = 2  # after these a client cancels or goes away
ALONE_TOKENS = 12  # of a request whose client does not stay: as far as it is compared

Outputs = dict[int, list[int]]  # token ids by sequence


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return ModelFiles(source=MODEL, kind=ModelKind.GGUF, path=smollm2_gguf(tmp_path), digest=DIGEST)


@pytest.mark.timeout(180)
async def test_everyone_gets_what_he_would_have_got_alone(files: ModelFiles, native_library: NativeLibrary) -> None:
    assert native_library
    requests = mixed_requests(NUM_CLIENTS)
    alone = await _alone(files, requests)

    async with _served(files, max_num_seqs=16, enable_prefix_caching=True) as (served, counted):
        got = await asyncio.gather(*(_client(served.router.port, mixed) for mixed in requests))
        rests = await served.comes_to_rest()

    for mixed, outputs in zip(requests, got, strict=True):
        _compare(mixed, outputs, alone[mixed.number])
    assert rests, "slots or KV blocks were not given back"
    print(f"{NUM_CLIENTS} clients: {counted.hit_rate:.0%} of {counted.num_asked} prompt tokens came from the cache")
    assert counted.hit_rate > 0.25, "half of the prompts have most of their tokens in common"


async def _alone(files: ModelFiles, requests: list[MixedRequest]) -> list[Outputs]:
    """What each request gets on a server that has nothing else to do, and remembers no prefix."""
    async with _served(files, max_num_seqs=4, enable_prefix_caching=False) as (served, _):
        answers = []
        for mixed in requests:
            request = pb.GenerateRequest()
            request.CopyFrom(mixed.request)
            request.sampling.max_tokens = min(request.sampling.max_tokens, ALONE_TOKENS)
            answers.append(_outputs(await served.answer(request)))
        return answers


def _compare(mixed: MixedRequest, outputs: Outputs, alone: Outputs) -> None:
    if mixed.behaviour in (Behaviour.STAY, Behaviour.COME_BACK):
        assert outputs == alone, mixed
        return
    length = min(len(outputs[0]), len(alone[0]))
    assert length >= FIRST_TOKENS, mixed
    assert outputs[0][:length] == alone[0][:length], mixed


@asynccontextmanager
async def _served(
    files: ModelFiles, *, max_num_seqs: int, enable_prefix_caching: bool
) -> AsyncIterator[tuple[ServedEngine, CountedPrefills]]:
    config = EngineConfig(
        files=files,
        kernels="native",
        max_model_len=512,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=256,
        kv_cache_tokens=max_num_seqs * 256,
        enable_prefix_caching=enable_prefix_caching,
    )
    text = load_text_model(files, name=MODEL, chat_template=None, generation_config=GenerationConfig.NONE)
    engine: Engine = load_engine(config, report=lambda _: None)
    counted = CountedPrefills(engine)
    async with serve_engine(counted, {MODEL: text}, led=MODEL) as served:
        yield served, counted
    engine.close()


# --- clients ---------------------------------------------------------------------------------------------------------


async def _client(port: int, mixed: MixedRequest) -> Outputs:
    """What one client has got, whatever it did meanwhile; each has a connection of its own."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = GenerationStub(channel)  # type: ignore[no-untyped-call]
        stream = stub.Generate(mixed.request, timeout=PATIENCE_S)
        if mixed.behaviour is Behaviour.STAY:
            return _outputs(await _read(stream))
        events = await _read(stream, num_tokens=FIRST_TOKENS)
        if mixed.behaviour is Behaviour.CANCEL:
            await stub.Cancel(pb.CancelRequest(request_id=events[0].request_id))
            return _outputs([*events, *await _read(stream)])
        stream.cancel()
        if mixed.behaviour is Behaviour.COME_BACK:
            resume = pb.ResumeRequest(request_id=events[0].request_id, cursor=events[-1].cursor)
            events += await _read(stub.Resume(resume, timeout=PATIENCE_S))
        return _outputs(events)


async def _read(stream: Any, *, num_tokens: int | None = None) -> list[pb.GenerateEvent]:
    """Events to the end, or until there are so many tokens."""
    events: list[pb.GenerateEvent] = []
    async for event in stream:
        events.append(event)
        if num_tokens is not None and sum(len(event.tokens.token_ids) for event in events) >= num_tokens:
            break
    return events


def _outputs(events: list[pb.GenerateEvent]) -> Outputs:
    outputs: Outputs = defaultdict(list)
    for event in events:
        if event.HasField("tokens"):
            assert event.tokens.offset == len(outputs[event.tokens.sequence]), "a gap, or tokens told twice"
            outputs[event.tokens.sequence] += event.tokens.token_ids
    return dict(outputs)
