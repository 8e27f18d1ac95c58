"""Sizes of options become a plan; what no GPU could help is refused."""

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.asked_shape import (
    asked_plan,
    fixed_plan,
    is_one_rank,
    rank_resource,
    refuse_impossible_shape,
)
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.planning.plan_search import AskedPlan
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.published_shapes import published_shape


def test_without_sizes_a_replica_is_one_rank() -> None:
    assert is_one_rank(EngineOptions())
    assert fixed_plan(EngineOptions()) == ParallelPlan()


def test_experts_are_dealt_over_all_ranks_of_a_stage_where_that_is_asked() -> None:
    options = EngineOptions(
        tensor_parallel_size=2, data_parallel_size=2, pipeline_parallel_size=2, enable_expert_parallel=True
    )

    assert fixed_plan(options) == ParallelPlan(tp=2, pp=2, ep=4, dp=2)
    assert asked_plan(options) == AskedPlan(tp=2, pp=2, ep=None, dp=2, shares_experts=True)


def test_a_size_that_is_auto_leaves_the_plan_open() -> None:
    options = EngineOptions(tensor_parallel_size=None, pipeline_parallel_size=2)

    assert fixed_plan(options) is None
    assert not is_one_rank(options)
    assert asked_plan(options) == AskedPlan(tp=None, pp=2, ep=1, dp=1)


@pytest.mark.parametrize(
    ("options", "resource"),
    [
        (EngineOptions(), ""),
        (EngineOptions(device="cuda"), "GPU"),
        (EngineOptions(rank_resource="slots"), "slots"),
        (EngineOptions(device="cuda", rank_resource=""), ""),
    ],
    ids=str,
)
def test_ranks_take_gpus_unless_told_otherwise(options: EngineOptions, resource: str) -> None:
    assert rank_resource(options) == resource


@pytest.mark.parametrize("pp", [1, None])
def test_more_ranks_than_heads_are_refused_with_the_nearest_shape(pp: int | None) -> None:
    shape = published_shape("smollm2-135m")
    assert shape is not None

    with pytest.raises(ConfigurationError, match=r"tp=16 is more than the model's 9.*nearest shape .* is tp=9$"):
        refuse_impossible_shape(EngineOptions(tensor_parallel_size=16, pipeline_parallel_size=pp), shape)
