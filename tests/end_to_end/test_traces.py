"""One trace from a client through a router to the replicas that had its request, the killed one among them."""

import os
import signal

import pytest
from opentelemetry.sdk.trace import TracerProvider

from shardline import AsyncClient
from tests.end_to_end.served_cluster import LOCAL_REPLICA, served_cluster
from tests.end_to_end.streams import Heard, hear
from tests.end_to_end.trace_collector import CollectedSpan, TraceCollector

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.02")
GENERATE = "text_completion simulated"
PROMPT = "SENTINEL-of-a-prompt"


async def test_a_trace_spans_client_router_and_both_replicas_of_a_request_whose_first_one_died() -> None:
    with TraceCollector.listening() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with served_cluster(*SIMULATED, environment=environment) as cluster:
            async with AsyncClient(cluster.endpoint) as client:
                with TracerProvider().get_tracer("application").start_as_current_span("asking") as asking:
                    stream = client.stream(PROMPT, max_tokens=60)
                heard = await hear(stream, until_tokens=10, into=Heard())
                cluster.wait_until(lambda: bool(collector.spans("shardline.prefill")), "the first replica's spans")
                for pid in set(cluster.pids(LOCAL_REPLICA)) - set(cluster.pids("replica_keeper.py")):
                    os.kill(pid, signal.SIGKILL)
                await hear(stream, into=heard)
                request_id = stream.request_id
            cluster.wait_until(lambda: bool(collector.spans("shardline.decode")), "the second replica's spans")
            cluster.wait_until(lambda: bool(collector.spans(GENERATE)), "the router's span")
        spans = collector.spans()

    (generate,) = _named(spans, GENERATE)
    (queue,) = _named(spans, "shardline.queue")
    first, second = sorted(
        _named(spans, "shardline.prefill"), key=lambda span: int(str(span.attributes["shardline.request.attempt"]))
    )
    (decode,) = _named(spans, "shardline.decode")  # the killed one's was never ended
    context = asking.get_span_context()
    assert {span.trace_id for span in spans} == {f"{context.trace_id:032x}"}
    assert generate.parent_id == f"{context.span_id:016x}"
    assert {span.parent_id for span in (queue, first, second, decode)} == {generate.span_id}
    assert {span.attributes["shardline.request.id"] for span in spans} == {request_id}
    assert generate.service == "shardline-router"
    assert {span.service for span in (queue, first, second, decode)} == {"shardline-replica"}
    assert generate.events == ("accepted", "first token", "finish")
    assert generate.attributes["gen_ai.operation.name"] == "text_completion"
    assert generate.attributes["gen_ai.request.model"] == "simulated"
    assert generate.attributes["gen_ai.response.finish_reasons"] == "length"
    assert generate.attributes["gen_ai.usage.output_tokens"] == decode.attributes["gen_ai.usage.output_tokens"] == 60
    assert first.attributes["shardline.request.resumed_tokens"] == 0
    assert int(str(second.attributes["shardline.request.resumed_tokens"])) >= 10
    assert heard.num_tokens == 60
    assert PROMPT.encode() not in collector.bodies


def _named(spans: list[CollectedSpan], name: str) -> list[CollectedSpan]:
    return [span for span in spans if span.name == name]
