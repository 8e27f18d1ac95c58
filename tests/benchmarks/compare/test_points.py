"""What is measured, and in which order."""

from collections import Counter

import pytest

from benchmarks.compare.points import ENGINE_POINTS, parse_formats, rotated


def test_everybody_begins_equally_often_and_nobody_is_left_out() -> None:
    orders = [rotated("ABC", turn) for turn in range(6)]

    assert Counter(order[0] for order in orders) == {"A": 2, "B": 2, "C": 2}
    assert all(sorted(order) == ["A", "B", "C"] for order in orders)
    assert len(set(orders)) == 6


def test_two_contenders_do_not_simply_alternate() -> None:
    assert ["".join(rotated("AB", turn)) for turn in range(4)] == ["AB", "BA", "BA", "AB"]


def test_nobody_has_no_order() -> None:
    assert rotated([], 3) == ()


def test_points_are_told_in_words() -> None:
    assert [str(point) for point in ENGINE_POINTS] == [
        "decode 1",
        "decode 4",
        "decode 16",
        "prefill 512",
        "prefill 2048",
    ]


def test_formats_are_read_whatever_their_case() -> None:
    assert parse_formats("q4_0, BF16") == ("Q4_0", "BF16")


@pytest.mark.parametrize("text", ["", "Q4_K", "Q4_0,F16"])
def test_formats_that_are_none_of_ours_are_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="must be some of Q4_0, Q4_1, Q8_0, BF16"):
        parse_formats(text)
