"""A collector of OTLP traces over HTTP, of a few lines: keeps the spans that it is sent."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

Value = str | int | bool | float | None


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """One span as it came over the wire."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Value]
    events: tuple[str, ...]


class TraceCollector:
    """Listens while its block lasts."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._lock = threading.Lock()
        self._spans: list[CollectedSpan] = []
        self.bodies = b""  # everything that came, for a look at what must not be in it

    def spans(self, name: str = "") -> list[CollectedSpan]:
        """Those of a name, or all."""
        with self._lock:
            return [span for span in self._spans if name in ("", span.name)]

    def take(self, body: bytes) -> None:
        """One export."""
        with self._lock:
            self.bodies += body
            self._spans += _spans(ExportTraceServiceRequest.FromString(body))

    @classmethod
    @contextmanager
    def listening(cls) -> "Iterator[TraceCollector]":
        collector = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _spans(request: ExportTraceServiceRequest) -> list[CollectedSpan]:
    return [
        CollectedSpan(
            service=str({a.key: _value(a.value) for a in resource.resource.attributes}["service.name"]),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes={a.key: _value(a.value) for a in span.attributes},
            events=tuple(event.name for event in span.events),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return ",".join(str(_value(item)) for item in value.array_value.values)
    return None if kind is None else getattr(value, kind)
