"""Ranks get neighbouring whole units, all of them once, as evenly as it goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.weights.rank_slice import RankSlice, SplitAxis, decoder_splits


@given(num_units=st.integers(1, 200), unit=st.sampled_from([1, 16, 32, 192]), data=st.data())
def test_all_ranks_together_have_everything_once(num_units: int, unit: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, num_units))

    spans = [RankSlice(rank, size).span(num_units * unit, unit=unit) for rank in range(size)]

    assert [row for span in spans for row in span] == list(range(num_units * unit))
    assert all(span.start % unit == 0 and span.stop % unit == 0 for span in spans)
    assert max(map(len, spans)) - min(map(len, spans)) <= unit


def test_a_group_of_one_has_everything_whatever_the_unit() -> None:
    assert RankSlice().span(7, unit=7) == range(7)
    assert RankSlice().name == "tp0of1"


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_outside_of_its_group_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"the rank is {rank} of {size}"):
        RankSlice(rank, size)


def test_more_ranks_than_units_are_refused_with_the_most_there_can_be() -> None:
    with pytest.raises(ValueError, match="in units of 64 are too few for 4 ranks: take at most 3"):
        RankSlice(0, 4).span(192, unit=64)
    with pytest.raises(ValueError, match="50 rows or columns cannot be dealt out in units of 16"):
        RankSlice(0, 2).span(50, unit=16)


@pytest.mark.parametrize("rank", range(3))
def test_a_rank_has_the_inputs_of_attention_output_that_its_own_query_heads_make(rank: int) -> None:
    splits = decoder_splits(num_heads=9, num_kv_heads=3, head_dim=64)
    mine = RankSlice(rank, 3)

    query, output, key = (splits[name] for name in ("query", "attention_output", "key"))

    assert (query.axis, output.axis) == (SplitAxis.OUTPUTS, SplitAxis.INPUTS)
    assert mine.span(576, unit=query.unit) == mine.span(576, unit=output.unit) == range(192 * rank, 192 * (rank + 1))
    assert mine.span(192, unit=key.unit) == range(64 * rank, 64 * (rank + 1))


@pytest.mark.parametrize("size", [2, 5])
def test_a_rank_has_the_inputs_of_down_that_its_own_gate_and_up_make(size: int) -> None:
    splits = decoder_splits(num_heads=9, num_kv_heads=3, head_dim=64)

    spans = [
        [RankSlice(rank, size).span(1536, unit=splits[name].unit) for rank in range(size)]
        for name in ("gate", "up", "down")
    ]

    assert spans[0] == spans[1] == spans[2]
