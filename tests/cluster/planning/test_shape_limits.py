"""What a model's heads, widths, layers and experts allow, and the nearest shape to one that they do not."""

from dataclasses import replace

import pytest

from shardline_cluster.planning.shape_limits import nearest_shape, shape_refusal
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_shape import Experts, LayerShape
from shardline_workers.sizing.published_shapes import published_shape

SMALL, EXPERTS = published_shape("smollm2-135m"), published_shape("qwen3-30b-a3b")
assert SMALL is not None and EXPERTS is not None


@pytest.mark.parametrize(
    "plan",
    [ParallelPlan(), ParallelPlan(tp=2, pp=2), ParallelPlan(tp=9), ParallelPlan(tp=4, pp=30), ParallelPlan(dp=4)],
    ids=str,
)
def test_heads_that_do_not_divide_are_no_reason_to_refuse(plan: ParallelPlan) -> None:
    assert SMALL is not None
    assert shape_refusal(SMALL, plan, concurrency=4) is None


@pytest.mark.parametrize(
    ("plan", "reason", "nearest"),
    [
        (ParallelPlan(tp=10), "tp=10 is more than the model's 9 attention heads", ParallelPlan(tp=9)),
        (ParallelPlan(tp=2, pp=31), "pp=31 is more than the model's 30 layers", ParallelPlan(tp=2, pp=30)),
        (ParallelPlan(tp=2, ep=2), "ep=2 deals out experts, but the model has none", ParallelPlan(tp=2)),
        (ParallelPlan(dp=5), "dp=5 groups need a request each, but at most 4 is", ParallelPlan(dp=4)),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_the_nearest_that_can(
    plan: ParallelPlan, reason: str, nearest: ParallelPlan
) -> None:
    assert SMALL is not None
    refusal = shape_refusal(SMALL, plan, concurrency=4)

    assert refusal is not None and reason in refusal
    assert nearest_shape(SMALL, plan, concurrency=4) == nearest


def test_experts_that_are_too_narrow_to_cut_are_dealt_out_instead() -> None:
    assert EXPERTS is not None
    layers = (LayerShape(experts=Experts(num_experts=128, num_active=8, width=128)),)
    narrow = replace(EXPERTS, layers=layers)
    cut, dealt = ParallelPlan(tp=32), ParallelPlan(tp=32, ep=32)

    assert shape_refusal(narrow, cut, concurrency=4) == (
        "a matrix of width 128 cannot be cut in 32 pieces of at least 8 numbers"
    )
    assert shape_refusal(narrow, dealt, concurrency=4) is None
    assert nearest_shape(narrow, cut, concurrency=4) == ParallelPlan(tp=32, ep=2)
