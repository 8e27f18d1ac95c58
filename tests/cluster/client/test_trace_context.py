"""A request carries the trace of the application that made it."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shardline.errors import InvalidArgumentError
from shardline.trace_context import trace_metadata

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_application_s_present_span_is_the_parent() -> None:
    tracer = TracerProvider().get_tracer("application")

    with tracer.start_as_current_span("asking") as span:
        metadata = trace_metadata(None)

    context = span.get_span_context()
    told = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert metadata == (("traceparent", told),)


def test_without_a_span_nothing_goes_along() -> None:
    assert not trace.get_current_span().get_span_context().is_valid
    assert trace_metadata(None) is None


def test_a_given_parent_goes_before_the_present_span() -> None:
    with TracerProvider().get_tracer("application").start_as_current_span("asking"):
        assert trace_metadata(TRACEPARENT) == (("traceparent", TRACEPARENT),)


def test_what_is_no_traceparent_is_refused_with_an_example() -> None:
    with pytest.raises(InvalidArgumentError, match=r"traceparent is 'mine', but must be .* such as 00-"):
        trace_metadata("mine")
