"""Which shapes a model can have at all, however much memory there is. Pure."""

from collections.abc import Iterator

from shardline_workers.parallel.parallel_plan import ParallelPlan, possible_ep
from shardline_workers.sizing.model_shape import ModelShape

LEAST_WIDTH = 8  # of a rank's part of a matrix; parts are of 32 where the width allows


def shape_refusal(shape: ModelShape, plan: ParallelPlan, *, concurrency: int) -> str | None:
    """Why the model cannot be dealt to these ranks; None where it can.

    Args:
        shape: of the model.
        plan: of one replica.
        concurrency: requests that run at once.
    """
    num_heads, width = shape.attention.num_heads, narrowest_width(shape)
    if plan.tp > num_heads:
        return f"tp={plan.tp} is more than the model's {num_heads} attention heads"
    if plan.expert_tp > 1 and plan.expert_tp * LEAST_WIDTH > width:
        return f"a matrix of width {width} cannot be cut in {plan.expert_tp} pieces of at least {LEAST_WIDTH} numbers"
    if plan.pp > shape.num_layers:
        return f"pp={plan.pp} is more than the model's {shape.num_layers} layers"
    if plan.ep > 1 and not shape.num_experts:
        return f"ep={plan.ep} deals out experts, but the model has none"
    if plan.ep > 1 and plan.ep > shape.num_experts:
        return f"ep={plan.ep} is more than the model's {shape.num_experts} experts"
    if plan.dp > concurrency:
        return f"dp={plan.dp} groups need a request each, but at most {concurrency} is to run at once"
    return None


def nearest_shape(shape: ModelShape, plan: ParallelPlan, *, concurrency: int) -> ParallelPlan:
    """The largest shape within `plan` that the model can have; arguments as of `shape_refusal`."""
    pp, dp = min(plan.pp, shape.num_layers), min(plan.dp, concurrency)
    return next(
        smaller
        for smaller in _smaller(plan, pp=pp, dp=dp, most_tp=min(plan.tp, shape.attention.num_heads))
        if shape_refusal(shape, smaller, concurrency=concurrency) is None
    )


def narrowest_width(shape: ModelShape) -> int:
    """The narrowest MLP or expert: what tensor parallelism cuts."""
    return min(layer.experts.width if layer.experts else layer.mlp_width for layer in shape.layers)


def _smaller(plan: ParallelPlan, *, pp: int, dp: int, most_tp: int) -> Iterator[ParallelPlan]:
    """With the most tensor-parallel ranks first, then with about as many expert parts as asked for. Ends with one rank
    a group, which every model can have."""
    for tp in range(most_tp, 0, -1):
        for ep in sorted(possible_ep(tp=tp, dp=dp), key=lambda ep: abs(ep - plan.ep)):
            yield ParallelPlan(tp=tp, pp=pp, ep=ep, dp=dp)
    yield ParallelPlan(pp=pp, dp=dp)
