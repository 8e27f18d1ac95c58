"""Tokens a second that memory bandwidth and matrix units allow at most. What links between GPUs cost is not counted."""

from dataclasses import dataclass
from math import ceil

from shardline_cluster.planning.gpu_models import GpuModel
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.rank_share import most_kv_heads, most_query_heads, rank_share
from shardline_cluster.planning.stage_memory import StageMemory
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_parts import PartSplit, head_part, layer_parts
from shardline_workers.sizing.model_shape import LatentAttention, LayerShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Upper bounds of one replica."""

    decode_alone: float  # tokens a second of one request alone
    decode_together: float  # of all requests at once, added up
    prefill: float  # prompt tokens a second


def roofline(needs: ModelNeeds, plan: ParallelPlan, stages: tuple[StageMemory, ...], gpu: GpuModel) -> Roofline:
    """The bounds on such GPUs, each request at its full context.

    Decoding takes the time to read weights, keys and values once a step, or to multiply if that takes longer; as many
    batches as stages are on their way. Prefill multiplies; half a context is attended to on average.
    """
    workload = needs.workload
    batch = ceil(workload.concurrency / plan.pp)
    alone = [_decode_s(needs, plan, stage, gpu, batch=1) for stage in stages]
    together = [_decode_s(needs, plan, stage, gpu, batch=batch) for stage in stages]
    turn_s = max(sum(together), ceil(workload.concurrency / batch) * max(together))
    flops = max(_stage_flops(needs, plan, stage, context=workload.context // 2, decodes=False) for stage in stages)
    return Roofline(
        decode_alone=1 / sum(alone),
        decode_together=workload.concurrency / turn_s,
        prefill=plan.dp * gpu.flops_s(needs.stored.arithmetic) / flops,
    )


def _decode_s(needs: ModelNeeds, plan: ParallelPlan, stage: StageMemory, gpu: GpuModel, *, batch: int) -> float:
    """Seconds of a step in one stage, with `batch` requests in all groups together."""
    in_group = ceil(batch / plan.dp)
    read_s = _read_bytes(needs, plan, stage, batch=batch) / (gpu.bandwidth_gb_s * 1e9)
    flops = in_group * _stage_flops(needs, plan, stage, context=needs.workload.context, decodes=True)
    return max(read_s, flops / gpu.flops_s(needs.stored.arithmetic))


def _read_bytes(needs: ModelNeeds, plan: ParallelPlan, stage: StageMemory, *, batch: int) -> float:
    """What the fullest rank reads in a step: of the experts those that a batch is likely to meet, of the embedding next
    to nothing."""
    shape, workload = needs.shape, needs.workload
    total = _head_bytes(needs, plan) if stage.layers.stop == shape.num_layers else 0.0
    for number in stage.layers:
        layer = shape.layers[number]
        for part in layer_parts(shape, layer):
            share = needs.stored.part_bytes(rank_share(part, shape, plan, experts=layer.experts), layer=number)
            total += share * (_met(layer, batch) if part.split is PartSplit.EXPERTS else 1.0)
    kv = shape.kv
    seen = kv.seen_tokens(workload.context, stage.layers) * most_kv_heads(shape, plan.tp)
    return total + ceil(batch / plan.dp) * seen * kv.head_bytes(workload.kv_dtype)


def _met(layer: LayerShape, batch: int) -> float:
    """The share of a layer's experts that `batch` tokens go to, if each is as likely as any other."""
    experts = layer.experts
    return 1.0 if experts is None else 1 - (1 - experts.num_active / experts.num_experts) ** batch


def _head_bytes(needs: ModelNeeds, plan: ParallelPlan) -> float:
    return needs.stored.part_bytes(rank_share(head_part(needs.shape), needs.shape, plan), layer=None)


def _stage_flops(needs: ModelNeeds, plan: ParallelPlan, stage: StageMemory, *, context: int, decodes: bool) -> float:
    """Operations for one token of one group on the fullest rank: two for each parameter and each attended number."""
    shape = needs.shape
    parameters = 0.0
    for number in stage.layers:
        layer = shape.layers[number]
        for part in layer_parts(shape, layer):
            share = rank_share(part, shape, plan, experts=layer.experts).num_parameters
            active = layer.experts.num_active / layer.experts.num_experts if layer.experts else 1.0
            # Experts work for all groups of a row, as many tokens as there are groups.
            parameters += share * active * _row_groups(plan) if part.split is PartSplit.EXPERTS else share
    if decodes and stage.layers.stop == shape.num_layers:
        parameters += rank_share(head_part(shape), shape, plan).num_parameters
    seen = shape.kv.seen_tokens(max(1, context), stage.layers)
    return 2 * (parameters + seen * most_query_heads(shape, plan.tp) * _attended_dims(needs, decodes=decodes))


def _row_groups(plan: ParallelPlan) -> int:
    return 1 if plan.ep == 1 else plan.dp


def _attended_dims(needs: ModelNeeds, *, decodes: bool) -> int:
    """Numbers of a token that a head is multiplied with: its key, and its value. Of a latent cache decoding takes the
    latent vector for both; prefill makes keys and values of it, which are shorter."""
    heads = needs.shape.attention
    if isinstance(heads, LatentAttention):
        own = heads.nope_dim + heads.rope_dim + heads.value_dim
        return 2 * heads.kv_rank + heads.rope_dim if decodes else own
    return 2 * heads.head_dim
