"""Figures of streams that ran side by side."""

import pytest

from benchmarks.compare.stream_figures import StreamTimes, mean_figures, stream_figures


def stream(*arrivals: float, sent_at: float = 0.0, each: float = 1.0) -> StreamTimes:
    return StreamTimes(
        sent_at=sent_at, arrivals=tuple((instant, each) for instant in arrivals), ended_at=arrivals[-1] + 0.5
    )


def test_one_stream_alone() -> None:
    figures = stream_figures([stream(1.0, 1.5, 2.0, 3.5)])

    assert figures["tokens_per_s"] == 1.0  # 4 tokens in 4 s, the end included
    assert figures["decode_tokens_per_s"] == pytest.approx(3 / 2.5)
    assert figures["first_token_p50_ms"] == 1000.0
    assert figures["inter_token_p50_ms"] == 500.0


def test_decoding_counts_only_while_all_streams_run() -> None:
    figures = stream_figures([stream(1.0, 2.0, 3.0, 4.0), stream(2.5, 3.5, 4.5, 5.5)])

    assert figures["decode_tokens_per_s"] == pytest.approx(3 / 1.5)  # 3.0, 3.5 and 4.0, between 2.5 and 4.0


def test_streams_that_never_ran_together_have_no_decoding_rate() -> None:
    assert stream_figures([stream(1.0, 2.0), stream(3.0, 4.0)])["decode_tokens_per_s"] == 0.0


def test_events_with_more_than_a_token_share_the_pause() -> None:
    assert stream_figures([stream(1.0, 2.0, 3.0, each=2.0)])["inter_token_p50_ms"] == 500.0


def test_groups_after_each_other_are_averaged() -> None:
    assert mean_figures([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 6.0}]) == {"a": 2.0, "b": 4.0}
