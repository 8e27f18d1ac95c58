"""What a router counts, over real gRPC and with a clock of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import RequestEnd, RequestState, SequenceFinish
from shardline_cluster.router.router_metrics import RouterMetrics, StreamMeter, finished_reason
from shardline_cluster.router.router_telemetry import RouterTelemetry
from shardline_cluster.router.streams.stream_reader import SequenceUpdate, StreamUpdate
from shardline_protos import generation_pb2 as pb
from tests.cluster.router.router_bench import (
    MODEL,
    RouterBench,
    RunningRouter,
    next_of_kind,
    open_bench,
    read_all,
    request,
)
from tests.cluster.router.scripted_leader import STOP
from tests.cluster.telemetry.readings import Readings, readings


class _Counted:
    """A router whose metrics a test reads."""

    def __init__(self, bench: RouterBench) -> None:
        self.bench = bench
        self.registry = CollectorRegistry()
        self.router: RunningRouter

    async def start(self) -> None:
        self.bench.telemetry = RouterTelemetry(RouterMetrics(self.registry))
        self.router = await self.bench.start_router()

    def now(self) -> Readings:
        return readings(self.registry)


@pytest.fixture
async def counted() -> AsyncIterator[_Counted]:
    async with open_bench() as bench:
        router = _Counted(bench)
        await router.start()
        yield router


async def test_a_request_is_counted_from_its_acceptance_to_its_end(counted: _Counted) -> None:
    stream = counted.router.stub.Generate(request())
    await next_of_kind(stream, "queued")
    request_id = await counted.bench.claim()
    meanwhile = counted.now()
    await counted.bench.say(request_id, "abc")
    await next_of_kind(stream, "tokens")
    await counted.bench.say(request_id, "de", finish=STOP)
    await read_all(stream)

    after = counted.now()
    assert meanwhile.value("shardline_requests_accepted_total", model_name=MODEL) == 1
    assert meanwhile.value("shardline_open_streams", model_name=MODEL) == 1
    assert after.value("shardline_open_streams", model_name=MODEL) == 0
    assert after.value("shardline_time_to_first_token_seconds_count", model_name=MODEL) == 1
    assert after.value("shardline_inter_token_latency_seconds_count", model_name=MODEL) == 2
    assert after.value("shardline_e2e_request_latency_seconds_count", model_name=MODEL) == 1
    assert after.value("shardline_stream_ends_total", model_name=MODEL, end="stop") == 1
    assert after.value("shardline_resumes_total", model_name=MODEL) in (0, None)


async def test_a_resumed_stream_is_no_first_token(counted: _Counted) -> None:
    stream = counted.router.stub.Generate(request())
    await next_of_kind(stream, "queued")
    request_id = await counted.bench.claim()
    await counted.bench.say(request_id, "abc")
    cursor = (await next_of_kind(stream, "tokens")).cursor
    stream.cancel()
    while not counted.now().value("shardline_stream_ends_total", model_name=MODEL, end="client_left"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await counted.bench.say(request_id, "de", finish=STOP)

    await read_all(counted.router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=cursor)))

    after = counted.now()
    assert after.value("shardline_resumes_total", model_name=MODEL) == 1
    assert after.value("shardline_time_to_first_token_seconds_count", model_name=MODEL) == 1
    assert after.value("shardline_stream_ends_total", model_name=MODEL, end="client_left") == 1
    assert after.value("shardline_stream_ends_total", model_name=MODEL, end="stop") == 1


async def test_refusals_are_told_by_code_and_reason_and_are_no_requests(counted: _Counted) -> None:
    for ask in (request(model="unknown"), request("", sampling=pb.SamplingParams(top_p=2.0))):
        with pytest.raises(grpc.aio.AioRpcError):
            await read_all(counted.router.stub.Generate(ask))

    after = counted.now()
    assert after.value("shardline_errors_total", code="NOT_FOUND", reason="UnknownModel") == 1
    assert after.value("shardline_errors_total", code="INVALID_ARGUMENT", reason="InvalidRequest") == 1
    assert after.value("shardline_requests_accepted_total", model_name=MODEL) in (0, None)


async def test_bytes_that_are_no_request_are_told_as_such(counted: _Counted) -> None:
    raw: Any = counted.router.channel.unary_stream("/shardline.v1.Generation/Generate")

    with pytest.raises(grpc.aio.AioRpcError):
        await read_all(raw(b"\xff\xff\xff"))

    assert counted.now().value("shardline_errors_total", code="INVALID_ARGUMENT", reason="Malformed") == 1


async def test_a_prompt_that_cannot_become_tokens_is_a_text_error(counted: _Counted) -> None:
    out_of_vocabulary = pb.GenerateRequest(token_ids=pb.TokenIds(ids=[10**6]))

    with pytest.raises(grpc.aio.AioRpcError):
        await read_all(counted.router.stub.Generate(out_of_vocabulary))

    assert counted.now().value("shardline_text_errors_total", model_name=MODEL) == 1


def _tokens(count: int, end: RequestEnd | None = None) -> StreamUpdate:
    ids = pack_ids(tuple(range(count)))
    return StreamUpdate(sequences=(SequenceUpdate(0, 0, ids, b"", None),) if count else (), end=end)


def test_times_are_those_of_the_router_s_clock_and_shared_by_tokens_that_come_together() -> None:
    registry, now_s = CollectorRegistry(), [100.0]
    meter = StreamMeter(RouterMetrics(registry, clock=lambda: now_s[0]), MODEL, began_s=100.0)
    end = RequestEnd(RequestState.DONE, (5,), (SequenceFinish("length"),))

    for instant_s, update in ((100.5, _tokens(1)), (101.5, _tokens(4)), (102.0, _tokens(0, end))):
        now_s[0] = instant_s
        meter.saw(update)
    meter.close()

    after = readings(registry)
    assert after.value("shardline_time_to_first_token_seconds_sum", model_name=MODEL) == 0.5
    assert after.value("shardline_inter_token_latency_seconds_count", model_name=MODEL) == 4
    assert after.value("shardline_inter_token_latency_seconds_sum", model_name=MODEL) == 1.0
    assert after.value("shardline_inter_token_latency_seconds_bucket", model_name=MODEL, le="0.25") is None
    assert after.value("shardline_inter_token_latency_seconds_bucket", model_name=MODEL, le="0.3") == 4
    assert after.value("shardline_e2e_request_latency_seconds_sum", model_name=MODEL) == 2.0


@pytest.mark.parametrize(
    ("state", "finish", "told"),
    [
        (RequestState.DONE, SequenceFinish("stop"), "stop"),
        (RequestState.DONE, SequenceFinish("length"), "length"),
        (RequestState.CANCELLED, None, "abort"),
        (RequestState.EXPIRED, None, "expired"),
        (RequestState.FAILED, None, "error"),
    ],
)
def test_ends_have_vllm_s_words(state: RequestState, finish: SequenceFinish | None, told: str) -> None:
    assert finished_reason(RequestEnd(state, (1,), (finish,))) == told
