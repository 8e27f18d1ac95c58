"""Heads over ranks: every head once, with the key-value head that it reads, whatever divides what."""

from itertools import chain, combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.parallel.head_split import even_spans, split_heads


@pytest.mark.parametrize(
    ("heads", "kv_heads", "ranks", "query_counts", "kv_counts"),
    [
        (9, 3, 2, [6, 3], [2, 1]),  # SmolLM2
        (32, 8, 3, [12, 12, 8], [3, 3, 2]),
        (32, 8, 5, [8, 8, 8, 4, 4], [2, 2, 2, 1, 1]),
        (32, 8, 7, [8, 4, 4, 4, 4, 4, 4], [2, 1, 1, 1, 1, 1, 1]),
        (6, 2, 3, [2, 1, 3], [1, 1, 1]),
        (4, 1, 3, [2, 1, 1], [1, 1, 1]),
    ],
)
def test_splits_that_do_not_come_out_even(
    heads: int, kv_heads: int, ranks: int, query_counts: list[int], kv_counts: list[int]
) -> None:
    shards = split_heads(num_heads=heads, num_kv_heads=kv_heads, num_ranks=ranks)

    assert [len(shard.query_heads) for shard in shards] == query_counts
    assert [len(shard.kv_heads) for shard in shards] == kv_counts


@given(kv_heads=st.integers(1, 16), group=st.integers(1, 16), data=st.data())
def test_every_head_has_one_rank_that_can_compute_it(kv_heads: int, group: int, data: st.DataObject) -> None:
    num_ranks = data.draw(st.integers(1, kv_heads * group))

    shards = split_heads(num_heads=kv_heads * group, num_kv_heads=kv_heads, num_ranks=num_ranks)

    assert list(chain.from_iterable(shard.query_heads for shard in shards)) == list(range(kv_heads * group))
    assert len(shards) == num_ranks
    for shard in shards:
        assert {head // group for head in shard.query_heads} == set(shard.kv_heads)
    assert max(len(shard.kv_heads) for shard in shards) == max(1, -(-kv_heads // num_ranks))


@given(count=st.integers(0, 200), num_parts=st.integers(1, 50))
def test_even_spans_sum_up_and_differ_by_one_at_most(count: int, num_parts: int) -> None:
    spans = even_spans(count, num_parts)

    lengths = [len(span) for span in spans]
    assert list(chain.from_iterable(spans)) == list(range(count))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize(
    ("heads", "kv_heads", "ranks", "told"),
    [(8, 3, 2, "cannot share 3"), (8, 0, 2, "cannot share 0"), (8, 4, 9, "take 1 to 8"), (8, 4, 0, "0 ranks")],
)
def test_what_cannot_be_dealt_out_is_refused(heads: int, kv_heads: int, ranks: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        split_heads(num_heads=heads, num_kv_heads=kv_heads, num_ranks=ranks)


def fewest(kv_heads: int, group: int, num_ranks: int) -> tuple[int, int]:
    """Key-value heads and query heads of the fullest rank, in the best of all divisions that kernels can compute."""
    subsets = [heads for size in range(1, kv_heads + 1) for heads in combinations(range(kv_heads), size)]
    choices = list(product(subsets, range(1, group + 1)))
    return min(
        (max(len(heads) for heads, _ in ranks), max(len(heads) * queries for heads, queries in ranks))
        for ranks in product(choices, repeat=num_ranks)
        if all(sum(queries for heads, queries in ranks if kv in heads) == group for kv in range(kv_heads))
    )


@pytest.mark.parametrize(
    ("kv_heads", "group", "ranks"),
    [(1, 4, 3), (2, 3, 3), (2, 4, 3), (2, 2, 4), (3, 2, 2), (3, 3, 2), (3, 3, 3), (4, 2, 3)],
)
def test_no_division_has_fewer_heads_on_its_fullest_rank(kv_heads: int, group: int, ranks: int) -> None:
    shards = split_heads(num_heads=kv_heads * group, num_kv_heads=kv_heads, num_ranks=ranks)

    fullest = max(len(shard.kv_heads) for shard in shards), max(len(shard.query_heads) for shard in shards)
    assert fullest == fewest(kv_heads, group, ranks)
