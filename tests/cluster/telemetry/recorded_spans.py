"""A tracer that keeps its spans for a test to read."""

from dataclasses import dataclass, field

from shardline_cluster.telemetry.tracing import Attribute, Attributes, Span, SpanKind


@dataclass
class RecordedSpan:
    """Implements `Span`."""

    name: str
    parent: str
    number: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    began_ns: int | None = None
    ended: int = 0
    error: str = ""

    @property
    def traceparent(self) -> str:
        return f"00-{1:032x}-{self.number:016x}-01"

    def set(self, attributes: Attributes) -> None:
        assert not self.ended, f"{self.name} is changed after its end"
        self.attributes |= attributes

    def event(self, name: str) -> None:
        assert not self.ended, f"something happens to {self.name} after its end"
        self.events.append(name)

    def end(self, *, error: str = "") -> None:
        self.ended += 1
        self.error = error


class RecordingTracer:
    """Implements `Tracer`."""

    records = True

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    def start(
        self,
        name: str,
        *,
        parent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Span:
        span = RecordedSpan(name, parent, len(self.spans) + 1, dict(attributes or {}), began_ns=began_ns)
        self.spans.append(span)
        return span

    def named(self, name: str) -> RecordedSpan:
        """The one of this name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def close(self) -> None:
        pass
