"""Numbers as flags take them."""

import argparse

import pytest

from shardline_cluster.cli.flags.number_flags import number_from


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("10", 10), ("2.5", 2.5)])
def test_numbers_within_bounds_are_taken(text: str, value: float) -> None:
    assert number_from(0, 10)(text) == value


@pytest.mark.parametrize(
    ("text", "whole", "message"),
    [
        ("-1", False, r"-1 is out of bounds: it must be from 0 to 10"),
        ("11", True, r"11 is out of bounds"),
        ("nan", False, r"nan is out of bounds"),
        ("ten", False, r"'ten' is not a number"),
        ("2.5", True, r"'2\.5' is not a whole number"),
    ],
)
def test_others_are_refused_with_the_bounds(text: str, whole: bool, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        number_from(0, 10, whole=whole)(text)


def test_a_bound_without_an_upper_end_is_told_as_such() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"it must be 0\.001 or more"):
        number_from(0.001)("0")
