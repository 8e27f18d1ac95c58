"""Stages of about equal bytes, compared with every division that there is."""

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.parallel.layer_ranges import balanced_ranges


def sizes_of(ranges: tuple[range, ...], layers: list[int], *, first: int, last: int) -> list[int]:
    sizes = [sum(layers[number] for number in part) for part in ranges]
    sizes[0] += first
    sizes[-1] += last
    return sizes


def all_divisions(num_layers: int, num_stages: int) -> list[tuple[range, ...]]:
    return [
        tuple(range(start, end) for start, end in zip((0, *cuts), (*cuts, num_layers), strict=True))
        for cuts in combinations(range(1, num_layers), num_stages - 1)
    ]


@given(
    layers=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    first=st.integers(0, 100),
    last=st.integers(0, 100),
    data=st.data(),
)
def test_no_division_has_a_smaller_largest_stage_and_none_such_is_more_even(
    layers: list[int], first: int, last: int, data: st.DataObject
) -> None:
    num_stages = data.draw(st.integers(1, len(layers)))

    ranges = balanced_ranges(layers, num_stages, first_bytes=first, last_bytes=last)

    assert list(chain.from_iterable(ranges)) == list(range(len(layers)))
    assert len(ranges) == num_stages
    assert all(ranges)
    found = sizes_of(ranges, layers, first=first, last=last)
    others = [sizes_of(other, layers, first=first, last=last) for other in all_divisions(len(layers), num_stages)]
    assert max(found) == min(max(sizes) for sizes in others)
    assert sum(size**2 for size in found) == min(
        sum(size**2 for size in sizes) for sizes in others if max(sizes) == max(found)
    )


def test_embedding_and_head_count_as_the_layers_that_they_weigh() -> None:
    ranges = balanced_ranges([10] * 8, 2, first_bytes=40, last_bytes=0)

    assert [len(part) for part in ranges] == [2, 6]


def test_the_largest_stage_goes_before_evenness() -> None:
    layers = [6, 2, 1, 7, 2]

    ranges = balanced_ranges(layers, 3)

    # 6, 3 and 9 differ less.
    assert sizes_of(ranges, layers, first=0, last=0) == [8, 8, 2]


def test_layers_that_do_not_divide_lie_in_stages_that_differ_by_one() -> None:
    assert sorted(len(part) for part in balanced_ranges([7] * 30, 4)) == [7, 7, 8, 8]


@pytest.mark.parametrize("num_stages", [0, 4])
def test_more_stages_than_layers_there_cannot_be(num_stages: int) -> None:
    with pytest.raises(ValueError, match="take 1 to 3"):
        balanced_ranges([1, 1, 1], num_stages)
