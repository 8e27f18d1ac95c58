"""The layers of each pipeline stage, and the memory that the fullest rank of it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from shardline_cluster.planning.gpu_models import GIB
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.rank_share import most_kv_heads, rank_share
from shardline_workers.parallel.layer_ranges import balanced_ranges
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_parts import embedding_part, final_norm_part, head_part, layer_parts

RUNTIME_BYTES = int(1.25 * GIB)  # context of the driver, libraries, buffers of collectives
_ACTIVATION_BYTES = 2
_LOGIT_BYTES = 4
_HIDDEN_COPIES = 8  # residual, norm, queries, keys, values, output and their successors


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """One stage, and the fullest of its ranks."""

    layers: range
    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int  # runtime, activations, logits

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes


def stage_memories(needs: ModelNeeds, plan: ParallelPlan) -> tuple[StageMemory, ...]:
    """The stages of a plan, their layers balanced by bytes of weights, keys and values.

    Raises:
        ValueError: the plan asks for more stages than layers, or more ranks than heads.
    """
    weights = _layer_weights(needs, plan)
    kv_bytes = layer_kv_bytes(needs, plan)
    first, last = _embedding_bytes(needs, plan), _head_bytes(needs, plan)
    ranges = balanced_ranges(
        [num_bytes + kv_bytes for num_bytes in weights], plan.pp, first_bytes=first, last_bytes=last
    )
    overhead = _overhead_bytes(needs, plan)
    return tuple(
        StageMemory(
            layers=layers,
            weights_bytes=sum(weights[layers.start : layers.stop])
            + (first if layers.start == 0 else 0)
            + (last if layers.stop == len(weights) else 0),
            kv_bytes=len(layers) * kv_bytes,
            overhead_bytes=overhead,
        )
        for layers in ranges
    )


def mean_stage_bytes(needs: ModelNeeds, plan: ParallelPlan) -> float:
    """What the fullest stage takes at least, found in a fraction of the time: all layers in even parts."""
    layers = sum(_layer_weights(needs, plan)) + needs.shape.num_layers * layer_kv_bytes(needs, plan)
    return layers / plan.pp + _overhead_bytes(needs, plan)


def layer_kv_bytes(needs: ModelNeeds, plan: ParallelPlan) -> int:
    """Keys and values of all requests in one layer, on the rank that has most heads.

    Layers with a window count like all others: the engine reads only the window, but keeps what lies before it.
    """
    workload = needs.workload
    num_tokens = ceil(workload.concurrency / plan.dp) * workload.context
    head_bytes = needs.shape.kv.head_bytes(workload.kv_dtype)
    return num_tokens * most_kv_heads(needs.shape, plan.tp) * head_bytes


def _layer_weights(needs: ModelNeeds, plan: ParallelPlan) -> Sequence[int]:
    """Bytes of each layer on its fullest rank. Layers are of few kinds, so that each kind is shared once."""
    shape = needs.shape
    shares = {
        layer: [rank_share(part, shape, plan, experts=layer.experts) for part in layer_parts(shape, layer)]
        for layer in set(shape.layers)
    }
    return [
        ceil(sum(needs.stored.part_bytes(part, layer=number) for part in shares[layer]))
        for number, layer in enumerate(shape.layers)
    ]


def _embedding_bytes(needs: ModelNeeds, plan: ParallelPlan) -> int:
    part = rank_share(embedding_part(needs.shape), needs.shape, plan)
    return ceil(needs.stored.part_bytes(part, layer=None))


def _head_bytes(needs: ModelNeeds, plan: ParallelPlan) -> int:
    """Of norm and head. A head that is the embedding takes room of its own only where another stage has that."""
    shape = needs.shape
    parts = [final_norm_part(shape)]
    if not shape.is_tied or plan.pp > 1:
        parts.append(rank_share(head_part(shape), shape, plan))
    return ceil(sum(needs.stored.part_bytes(part, layer=None) for part in parts))


def _overhead_bytes(needs: ModelNeeds, plan: ParallelPlan) -> int:
    shape, workload = needs.shape, needs.workload
    widest = max(
        layer.experts.width * layer.experts.num_active if layer.experts else layer.mlp_width for layer in shape.layers
    )
    numbers = _HIDDEN_COPIES * shape.hidden_size + 3 * ceil(widest / plan.tp)
    logits = ceil(workload.concurrency / plan.dp) * ceil(shape.vocab_size / plan.tp) * _LOGIT_BYTES
    return RUNTIME_BYTES + workload.batched_tokens * numbers * _ACTIVATION_BYTES + logits
