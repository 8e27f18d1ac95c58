"""Whether a model's matrices can be dealt to tensor-parallel ranks, before anything is read. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, gcd

from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.input_blocks import InputBlocks
from shardline_workers.parallel.head_split import split_heads
from shardline_workers.parallel.parallel_plan import ParallelPlan, possible_ep


def check_split(shape: DecoderShape, plan: ParallelPlan, blocks: InputBlocks) -> None:
    """Passes a plan whose ranks each get a part of every matrix.

    Raises:
        ValueError: a rank would get nothing, or a cut would go through quantised weights that belong together; the text
            names the nearest plan that works.
    """
    if refusal := _refusal(shape, plan, blocks):
        nearest = next(
            smaller for smaller in _smaller(_with_fewer_parts(shape, plan)) if _refusal(shape, smaller, blocks) is None
        )
        raise ValueError(f"this model cannot be dealt to {plan}: {refusal}; the nearest that works is {nearest}")


def _refusal(shape: DecoderShape, plan: ParallelPlan, blocks: InputBlocks) -> str | None:
    if plan.tp > min(shape.attention.num_heads, shape.vocab_size):
        return f"it has {shape.attention.num_heads} attention heads and {shape.vocab_size} tokens"
    return _few_experts(shape, plan) or _narrow_width(shape, plan, blocks) or _cut_head_block(shape, plan.tp, blocks)


def _few_experts(shape: DecoderShape, plan: ParallelPlan) -> str | None:
    num_experts = 0 if shape.experts is None else shape.experts.num_experts
    if plan.ep <= max(1, num_experts):
        return None
    return f"it has {num_experts or 'no'} experts in a layer, for ep={plan.ep} parts"


def _with_fewer_parts(shape: DecoderShape, plan: ParallelPlan) -> ParallelPlan:
    """The same ranks with as many parts of experts as can be, where there are too few experts."""
    if _few_experts(shape, plan) is None:
        return plan
    plans = (replace(plan, ep=ep) for ep in reversed(possible_ep(tp=plan.tp, dp=plan.dp)))
    return next(fewer for fewer in plans if _few_experts(shape, fewer) is None)


def _narrow_width(shape: DecoderShape, plan: ParallelPlan, blocks: InputBlocks) -> str | None:
    for name, width, num_parts in _widths(shape, plan):
        if ceil(width / blocks.width) < num_parts:
            return (
                f"the width {width} of {name} has {ceil(width / blocks.width)} blocks of {blocks.width} weights in this"
                f" file, for {num_parts} ranks"
            )
    return None


def _widths(shape: DecoderShape, plan: ParallelPlan) -> Iterator[tuple[str, int, int]]:
    """Every width that is dealt out, and to how many."""
    if any(shape.experts_of(layer) is None for layer in range(shape.num_layers)):
        yield "its MLPs", shape.intermediate_size, plan.tp
    if shape.experts is not None:
        yield "its experts", shape.experts.width, plan.expert_tp
        if shape.experts.shared_width:
            yield "its shared experts", shape.experts.shared_width, plan.tp


def _cut_head_block(shape: DecoderShape, tp: int, blocks: InputBlocks) -> str | None:
    size = shape.attention.head_dim if shape.latent is None else shape.latent.value_dim
    shards = split_heads(num_heads=shape.attention.num_heads, num_kv_heads=shape.attention.num_kv_heads, num_ranks=tp)
    if all(shard.query_heads.start * size % blocks.heads == 0 for shard in shards):
        return None
    return (
        f"the matrix that reads its heads has blocks of {blocks.heads} weights in this file, which only every "
        f"{blocks.heads // gcd(blocks.heads, size)} heads of {size} fill"
    )


def _smaller(plan: ParallelPlan) -> Iterator[ParallelPlan]:
    """With as many tensor-parallel ranks as can be; the last one, in which nothing is cut, always works."""
    for tp in range(plan.tp, 0, -1):
        if plan.ep == 1 or (tp * plan.dp % plan.ep == 0 and plan.ep % plan.dp == 0):
            yield replace(plan, tp=tp)
    for tp in range(plan.tp, 0, -1):
        yield replace(plan, tp=tp, ep=1 if plan.ep == 1 else tp * plan.dp)
