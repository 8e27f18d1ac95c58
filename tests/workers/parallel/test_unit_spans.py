"""Widths over ranks: whole units as long as there are enough, never less than what cannot be cut."""

import re
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.parallel.unit_spans import unit_spans


@pytest.mark.parametrize(
    ("count", "parts", "unit", "least", "lengths"),
    [
        (1536, 2, 32, 1, [768, 768]),
        (1536, 5, 32, 32, [320, 320, 320, 288, 288]),
        (1536, 4, 256, 256, [512, 512, 256, 256]),
        (100, 3, 32, 1, [64, 32, 4]),
        (48, 4, 32, 1, [16, 16, 8, 8]),
        (3, 3, 32, 1, [1, 1, 1]),
        (64, 3, 32, 8, [32, 16, 16]),
    ],
)
def test_spans_of_widths(count: int, parts: int, unit: int, least: int, lengths: list[int]) -> None:
    assert [len(span) for span in unit_spans(count, parts, unit=unit, least=least)] == lengths


@given(count=st.integers(1, 500), parts=st.integers(1, 40), halvings=st.integers(0, 3), least=st.integers(1, 32))
def test_each_rank_has_neighbours_that_begin_where_a_cut_may_be(
    count: int, parts: int, halvings: int, least: int
) -> None:
    parts = min(parts, -(-count // least))

    spans = unit_spans(count, parts, unit=least << halvings, least=least)

    assert list(chain.from_iterable(spans)) == list(range(count))
    assert all(span.start % least == 0 and len(span) > 0 for span in spans)


@pytest.mark.parametrize(("count", "parts", "least", "most"), [(2, 3, 1, 2), (512, 3, 256, 2), (10, 0, 1, 10)])
def test_more_ranks_than_there_are_parts_are_refused(count: int, parts: int, least: int, most: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"cannot be dealt to {parts} ranks: take 1 to {most}")):
        unit_spans(count, parts, unit=max(32, least), least=least)
