"""Figures out of instants."""

from typing import Any

import pytest

from benchmarks.measurements import Measurement, distribution, percentile, summarise


def a_measurement(*, error: str = "") -> Measurement:
    """Sent at 10 s; a token at 10.5, one at 11, three at 12.5; ended at 13."""
    return Measurement(
        due_at=9.5,
        sent_at=10.0,
        accepted_at=10.1,
        arrivals=[(10.5, 1), (11.0, 1), (12.5, 3)],
        ended_at=13.0,
        prompt_tokens=7,
        error=error,
    )


def test_one_request_tells_its_own_times() -> None:
    measured = a_measurement()

    assert measured.num_tokens == 5
    assert measured.first_token_s == 0.5
    assert measured.per_token_s == 0.5
    assert measured.inter_token_s() == [0.5, 0.5, 0.5, 0.5]


def test_what_did_not_come_is_unknown_and_not_nought() -> None:
    silent = Measurement(due_at=0.0, sent_at=0.0)
    single = Measurement(due_at=0.0, sent_at=0.0, arrivals=[(1.0, 4)])

    assert (silent.first_token_s, silent.per_token_s, silent.inter_token_s()) == (None, None, [])
    assert (single.first_token_s, single.per_token_s) == (1.0, None)


def test_only_completed_requests_count_and_errors_are_told_by_kind() -> None:
    unfinished = Measurement(due_at=10.0, sent_at=10.0, error="unfinished")

    summary: dict[str, Any] = summarise(
        [a_measurement(), a_measurement(), a_measurement(error="QueueFullError"), unfinished], began=10.0, ended=14.0
    )

    assert (summary["requests"], summary["completed"]) == (4, 2)
    assert summary["errors"] == {"QueueFullError": 1, "unfinished": 1}
    assert (summary["output_tokens"], summary["prompt_tokens"]) == (10, 14)
    assert (summary["output_tokens_per_s"], summary["requests_per_s"]) == (2.5, 0.5)
    assert summary["time_to_first_token_ms"]["p50"] == 500.0
    assert summary["end_to_end_ms"]["max"] == 3000.0
    assert summary["accept_ms"]["mean"] == 100.0
    assert summary["sent_late_ms"]["max"] == 500.0


def test_nothing_completed_has_no_times() -> None:
    summary = summarise([a_measurement(error="x")], began=0.0, ended=1.0)

    assert summary["time_to_first_token_ms"] is None
    assert summary["output_tokens_per_s"] == 0.0


def test_percentiles_lie_between_neighbours() -> None:
    ordered = [0.0, 1.0, 2.0, 3.0, 4.0]

    assert [percentile(ordered, p) for p in (0, 50, 90, 100)] == [0.0, 2.0, pytest.approx(3.6), 4.0]
    assert percentile([5.0], 99) == 5.0


def test_a_distribution_is_in_milliseconds_whatever_the_order() -> None:
    figures = distribution([0.003, 0.001, 0.002])

    assert figures is not None
    assert (figures["min"], figures["mean"], figures["max"], figures["p50"]) == (1.0, 2.0, 3.0, 2.0)
