"""What all ranks of a gang can agree on."""

from collections.abc import Mapping

import pytest

from shardline_workers.gang.loaded_share import LoadedShare
from shardline_workers.gang.shared_room import least_blocks, shared_numerics
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition

PLAN = ParallelPlan(tp=2, pp=2)


def share(
    rank: int, *, num_blocks: int = 100, block_size: int = 32, numerics: Mapping[str, str] | None = None
) -> LoadedShare:
    return LoadedShare(
        rank_name=f"rank {rank} (process 7{rank} on here)",
        position=RankPosition.of(PLAN, rank),
        num_blocks=num_blocks,
        block_size=block_size,
        block_bytes=1024,
        weights_bytes=2048,
        numerics=numerics or {"kernels": "native-2"},
    )


def test_the_cache_has_as_many_blocks_as_the_rank_with_the_least_room() -> None:
    assert least_blocks([share(0, num_blocks=50), share(1, num_blocks=40), share(2, num_blocks=60)]) == 40


def test_blocks_of_two_sizes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"rank 0 .* blocks of 32 tokens and rank 1 .* of 64; set block_size"):
        least_blocks([share(0), share(1, block_size=64)])


def test_ranks_with_other_kernels_are_refused_with_both() -> None:
    wrong = share(3, numerics={"kernels": "reference"})

    with pytest.raises(ValueError, match=r"rank 0 .* and rank 3 .*: kernels is native-2 on .* and reference on"):
        shared_numerics([share(0), share(1), share(2), wrong])


def test_a_stage_may_have_what_another_one_has_not() -> None:
    amx = {"kernels": "native-2", "bfloat16_products": "amx"}

    merged = shared_numerics([share(0), share(1), share(2, numerics=amx), share(3, numerics=amx)])

    assert merged == amx


def test_ranks_of_one_stage_may_not() -> None:
    amx = {"kernels": "native-2", "bfloat16_products": "amx"}

    with pytest.raises(ValueError, match=r"rank 2 .* and rank 3 .*: bfloat16_products is amx on .* and nothing on"):
        shared_numerics([share(0), share(1), share(2, numerics=amx), share(3)])
