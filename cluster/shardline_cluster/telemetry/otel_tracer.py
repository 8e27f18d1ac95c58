"""Spans by the OpenTelemetry SDK, sent as its standard variables say. The one module that imports it.

Its own provider, never the global one: what other libraries of this process do about traces is theirs.
"""

import os
import threading
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shardline_cluster.telemetry.tracing import Attributes, Span, SpanKind

CLOSE_S = 1.5  # a collector that is away holds up no process's end for longer

_KINDS = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
}


class OtelSpan:
    """A `Span` that is recorded, as far as the sampler takes it."""

    def __init__(self, span: trace.Span, propagator: TraceContextTextMapPropagator) -> None:
        self._span = span
        self._propagator = propagator

    @property
    def traceparent(self) -> str:
        """See `Span`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(self._span))
        return carrier.get("traceparent", "")

    def set(self, attributes: Attributes) -> None:
        """See `Span`."""
        self._span.set_attributes(dict(attributes))

    def event(self, name: str) -> None:
        """See `Span`."""
        self._span.add_event(name)

    def end(self, *, error: str = "") -> None:
        """See `Span`."""
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
            self._span.set_attribute("error.type", error)
        self._span.end()


class OtelTracer:
    """A `Tracer` over one exporter."""

    records = True

    def __init__(self, process: str, exporter: SpanExporter) -> None:
        """`process`: which kind it is, for services that the environment does not name."""
        self._provider = TracerProvider(resource=_resource(process, os.environ))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("shardline")
        self._propagator = TraceContextTextMapPropagator()

    def start(
        self,
        name: str,
        *,
        parent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Span:
        """See `Tracer`."""
        context = self._propagator.extract({"traceparent": parent}) if parent else None
        span = self._tracer.start_span(
            name,
            context=context or trace.set_span_in_context(trace.INVALID_SPAN),
            kind=_KINDS[kind],
            attributes=dict(attributes or {}),
            start_time=began_ns,
        )
        return OtelSpan(span, self._propagator)

    def close(self) -> None:
        """See `Tracer`."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def exporter_of(name: str, protocol: str) -> SpanExporter:
    """The exporter of one name in OTEL_TRACES_EXPORTER; `protocol` as in OTEL_EXPORTER_OTLP_PROTOCOL.

    Raises:
        ImportError: its package is not installed.
        ValueError: there is no such exporter or protocol here.
    """
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER is {name!r}, but only otlp, console and none are known here")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, but only grpc and http/protobuf are known here")


def _resource(process: str, environment: Mapping[str, str]) -> Resource:
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": f"shardline-{process}"})
