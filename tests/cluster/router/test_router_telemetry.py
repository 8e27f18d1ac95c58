"""A router's spans: one a call, under the client's, ended once, with how it went and without the client's words."""

import asyncio

import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import LaneBounds
from shardline_cluster.router.router_metrics import RouterMetrics
from shardline_cluster.router.router_telemetry import RESUME, RouterTelemetry
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload
from tests.cluster.router.router_bench import MODEL, RouterBench, next_of_kind, read_all, request
from tests.cluster.router.scripted_leader import STOP
from tests.cluster.telemetry.recorded_spans import RecordingTracer

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
GENERATE = f"text_completion {MODEL}"


@pytest.fixture
def tracer(bench: RouterBench) -> RecordingTracer:
    tracer = RecordingTracer()
    bench.telemetry = RouterTelemetry(RouterMetrics(CollectorRegistry()), tracer)
    return tracer


async def _traceparent_in_the_record(bench: RouterBench, request_id: str) -> str:
    found = (await bench.queue().look(request_id, "default")).value
    assert isinstance(found, Snapshot)
    return RequestPayload.FromString(found.info.submission.payload).traceparent


async def test_a_request_is_a_span_under_the_client_s_and_its_record_names_the_router_s(
    bench: RouterBench, tracer: RecordingTracer
) -> None:
    router = await bench.start_router()

    stream = router.stub.Generate(request(), metadata=(("traceparent", TRACEPARENT),))
    await next_of_kind(stream, "queued")
    request_id = await bench.claim()
    await bench.say(request_id, "abc", finish=STOP)
    await read_all(stream)

    span = tracer.named(GENERATE)
    assert span.parent == TRACEPARENT
    assert await _traceparent_in_the_record(bench, request_id) == span.traceparent
    assert (span.ended, span.error) == (1, "")
    assert span.events == ["accepted", "first token", "finish"]
    assert span.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": MODEL,
        "shardline.request.id": request_id,
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.output_tokens": 3,
    }


async def test_a_router_without_a_tracer_hands_the_client_s_parent_on(bench: RouterBench) -> None:
    router = await bench.start_router()

    for sent, kept in ((TRACEPARENT, TRACEPARENT), ("nonsense", "")):
        accepted = await next_of_kind(
            router.stub.Generate(request(background=True), metadata=(("traceparent", sent),)), "accepted"
        )
        assert await _traceparent_in_the_record(bench, accepted.request_id) == kept


async def test_a_client_that_leaves_and_one_that_resumes_are_a_span_each(
    bench: RouterBench, tracer: RecordingTracer
) -> None:
    router = await bench.start_router()
    stream = router.stub.Generate(request())
    await next_of_kind(stream, "queued")
    request_id = await bench.claim()
    await bench.say(request_id, "abc")
    cursor = (await next_of_kind(stream, "tokens")).cursor
    stream.cancel()
    while not tracer.named(GENERATE).ended:  # noqa: ASYNC110 - gRPC has no event for it
        await asyncio.sleep(0.01)

    await bench.say(request_id, "de", finish=STOP)
    await read_all(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=cursor)))

    left, resumed = tracer.named(GENERATE), tracer.named(RESUME)
    assert (left.error, left.events) == ("", ["accepted", "first token"])
    assert (resumed.ended, resumed.attributes["gen_ai.usage.output_tokens"]) == (1, 5)
    assert resumed.events == ["finish"]


async def test_a_refused_request_ends_its_span_with_code_and_kind_alone(
    bench: RouterBench, tracer: RecordingTracer
) -> None:
    router = await bench.start_router()
    await bench.queue().configure(LaneBounds(max_waiting_requests=0))

    with pytest.raises(grpc.aio.AioRpcError):
        await read_all(router.stub.Generate(request("a secret prompt")))

    span = tracer.named(GENERATE)
    assert (span.ended, span.error) == (1, "RESOURCE_EXHAUSTED QueueFullError")
    assert "secret" not in str(span)
