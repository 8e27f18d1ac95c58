"""Spans of a distributed trace, as processes record them; and nothing at all where nobody asked for traces.

A trace is carried on in W3C's words (https://www.w3.org/TR/trace-context/): a `traceparent` from the client's call goes
through the request's record to whichever replica takes it. That happens whether or not this process records spans.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

Attribute = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Attribute]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class SpanKind(Enum):
    """A span's place in a call."""

    SERVER = "server"
    CONSUMER = "consumer"
    INTERNAL = "internal"


class Span(Protocol):
    """One stretch of work. To be ended once, in any case."""

    @property
    def traceparent(self) -> str:
        """What those who work for it name as their parent; empty where there is no trace."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Adds attributes."""
        ...

    def event(self, name: str) -> None:
        """Notes that something happens now."""
        ...

    def end(self, *, error: str = "") -> None:
        """The work is over; `error`: why it failed."""
        ...


class Tracer(Protocol):
    """Begins spans."""

    @property
    def records(self) -> bool:
        """Whether spans lead anywhere: where not, callers need not work out attributes."""
        ...

    def start(
        self,
        name: str,
        *,
        parent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Span:
        """Begins a span under a `traceparent`, or a trace of its own where that is empty. `began_ns`: nanoseconds since
        1970; None: now.
        """
        ...

    def close(self) -> None:
        """Sends what is left, for at most a second or two."""
        ...


@dataclass(frozen=True, slots=True)
class NoSpan:
    """Records nothing, and hands its parent on."""

    traceparent: str = ""

    def set(self, _attributes: Attributes) -> None:
        """Nothing."""

    def event(self, _name: str) -> None:
        """Nothing."""

    def end(self, *, error: str = "") -> None:
        """Nothing."""


class NoTracer:
    """A `Tracer` for processes that nobody asked for traces."""

    records = False

    def start(
        self,
        _name: str,
        *,
        parent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Span:
        """See `Tracer.start`."""
        return NoSpan(parent)

    def close(self) -> None:
        """Nothing."""


def checked_traceparent(text: str) -> str:
    """A traceparent as a client sent it, or nothing where it is none: a bad one is no reason to refuse a request."""
    return text if _TRACEPARENT.fullmatch(text) and text[:2] != "ff" else ""
