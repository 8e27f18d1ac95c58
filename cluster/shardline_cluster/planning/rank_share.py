"""What one rank has of a part: always the share of the fullest rank, since that one must fit."""

from math import ceil

from shardline_workers.parallel.head_split import HeadShard, split_heads
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.unit_spans import WIDTH_UNIT, unit_spans
from shardline_workers.sizing.model_parts import Part, PartSplit
from shardline_workers.sizing.model_shape import Experts, GroupedAttention, LatentAttention, ModelShape


def most_query_heads(shape: ModelShape, tp: int) -> int:
    """Query heads of the rank that has most."""
    heads = shape.attention
    if isinstance(heads, LatentAttention):
        return ceil(heads.num_heads / tp)
    return max(len(shard.query_heads) for shard in _shards(heads, tp))


def most_kv_heads(shape: ModelShape, tp: int) -> int:
    """Key-value heads of the rank that has most. A latent cache is whole on every rank."""
    heads = shape.attention
    if isinstance(heads, LatentAttention):
        return 1
    return max(len(shard.kv_heads) for shard in _shards(heads, tp))


def rank_share(part: Part, shape: ModelShape, plan: ParallelPlan, *, experts: Experts | None = None) -> Part:
    """That part with the parameters of the fullest rank. `experts` are those of the part's layer."""
    if part.split is PartSplit.QUERY_HEADS:
        num_parameters = most_query_heads(shape, plan.tp) * part.unit
    elif part.split is PartSplit.KV_HEADS:
        num_parameters = most_kv_heads(shape, plan.tp) * part.unit
    elif part.split is PartSplit.WIDTH:
        num_parameters = _widest(part.num_parameters // part.unit, plan.tp) * part.unit
    elif part.split is PartSplit.EXPERTS and experts is not None:
        per_width = part.unit // experts.width
        num_parameters = ceil(experts.num_experts / plan.ep) * _widest(experts.width, plan.expert_tp) * per_width
    else:
        num_parameters = part.num_parameters
    return Part(part.name, num_parameters, part.split, part.unit)


def _shards(heads: GroupedAttention, tp: int) -> tuple[HeadShard, ...]:
    return split_heads(num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, num_ranks=tp)


def _widest(width: int, num_ranks: int) -> int:
    """The longest part of a width, dealt out as ranks do it; one of the least parts where there are too few."""
    return max(map(len, unit_spans(width, min(num_ranks, width), unit=WIDTH_UNIT)))
