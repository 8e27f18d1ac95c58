"""The trace that a request belongs to, as it goes with a call: W3C's `traceparent`.

An application that uses OpenTelemetry needs to do nothing: its present span is the parent. Where it has not loaded
OpenTelemetry there is no span, and nothing is imported to find that out.
"""

import importlib
import re
import sys
from typing import Any

from shardline.errors import InvalidArgumentError

Metadata = tuple[tuple[str, str], ...]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_metadata(traceparent: str | None) -> Metadata | None:
    """Metadata of every call of one request: the given parent, else the application's present span, else None.

    Raises:
        InvalidArgumentError: it is no traceparent.
    """
    if traceparent is not None:
        if not _TRACEPARENT.fullmatch(traceparent):
            raise InvalidArgumentError(
                f"traceparent is {traceparent[:80]!r}, but must be VERSION-TRACE-SPAN-FLAGS in lower-case hexadecimal, "
                "such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            )
        return (("traceparent", traceparent),)
    if "opentelemetry.trace" not in sys.modules:
        return None
    propagate: Any = importlib.import_module("opentelemetry.propagate")
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((name.lower(), value) for name, value in carrier.items()) or None
