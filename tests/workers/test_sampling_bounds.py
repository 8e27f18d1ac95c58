"""Bounds of sampling's numbers: what lies within, and how they are told."""

import math

from shardline_workers.sampling_bounds import SamplingBounds


def test_both_ends_lie_within_and_what_is_no_number_does_not() -> None:
    bounds = SamplingBounds(0, 10)

    assert [bounds.allow(value) for value in (-0.1, 0, 10, 10.1, math.inf, math.nan)] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert str(bounds) == "0 … 10"


def test_the_least_can_be_out() -> None:
    bounds = SamplingBounds(0, 1, above_least=True)

    assert (bounds.allow(0), bounds.allow(1e-9), bounds.allow(1)) == (False, True, True)
    assert str(bounds) == "more than 0 and at most 1"
