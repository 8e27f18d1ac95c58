"""A trace is carried on whether or not this process records spans; nonsense is not."""

import pytest

from shardline_cluster.telemetry.tracing import NoTracer, checked_traceparent

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_process_without_traces_hands_its_parent_on() -> None:
    span = NoTracer().start("any", parent=TRACEPARENT)
    span.set({"any": 1})
    span.event("any")
    span.end(error="any")

    assert span.traceparent == TRACEPARENT
    assert NoTracer().start("any", parent="").traceparent == ""


def test_a_traceparent_as_w3c_has_it_is_taken() -> None:
    assert checked_traceparent(TRACEPARENT) == TRACEPARENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        TRACEPARENT.upper(),
        TRACEPARENT + "-what-the-future-adds" * 1000,
        "x" * 100_000,
    ],
)
def test_anything_else_is_left_out_and_refuses_nobody(text: str) -> None:
    assert checked_traceparent(text) == ""
