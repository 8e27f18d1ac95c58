"""Spans as they are handed to an exporter."""

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shardline_cluster.telemetry.otel_tracer import OtelTracer
from shardline_cluster.telemetry.tracing import SpanKind

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _exported(exporter: InMemorySpanExporter, tracer: OtelTracer) -> dict[str, ReadableSpan]:
    tracer.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_span_continues_the_trace_of_its_parent_and_hands_it_on() -> None:
    exporter = InMemorySpanExporter()
    tracer = OtelTracer("router", exporter)

    outer = tracer.start("outer", parent=TRACEPARENT, kind=SpanKind.SERVER)
    tracer.start("inner", parent=outer.traceparent, attributes={"lane": "a"}, began_ns=5).end()
    outer.event("first token")
    outer.end()

    spans = _exported(exporter, tracer)
    outside, inside = spans["outer"], spans["inner"]
    assert outside.context is not None and inside.parent is not None and outside.parent is not None
    assert f"{outside.context.trace_id:032x}" == TRACEPARENT.split("-")[1]
    assert f"{outside.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert inside.parent.span_id == outside.context.span_id
    assert inside.start_time == 5
    assert dict(inside.attributes or {}) == {"lane": "a"}
    assert [event.name for event in outside.events] == ["first token"]
    assert outside.kind.name == "SERVER"
    assert outside.resource.attributes["service.name"] == "shardline-router"


def test_a_span_without_a_parent_begins_a_trace_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    tracer = OtelTracer("router", exporter)

    tracer.start("one", parent="").end()
    tracer.start("other", parent="").end(error="DATA_LOSS DataLossError")

    spans = _exported(exporter, tracer)
    one, other = spans["one"], spans["other"]
    assert one.context is not None and other.context is not None
    assert one.parent is None
    assert one.context.trace_id != other.context.trace_id
    assert other.status.description == "DATA_LOSS DataLossError"
    assert (other.attributes or {})["error.type"] == "DATA_LOSS DataLossError"
