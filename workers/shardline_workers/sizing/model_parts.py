"""A model's parameters by part, and how ranks can share each. Biases are left out: they are a thousandth."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from shardline_workers.sizing.model_shape import Experts, GroupedAttention, LatentAttention, LayerShape, ModelShape


class PartName(Enum):
    """What parameters are for."""

    EMBEDDING = "embedding"
    HEAD = "head"
    ATTENTION = "attention"
    MLP = "mlp"
    EXPERTS = "experts"
    SHARED_EXPERTS = "shared experts"
    ROUTER = "router"
    NORMS = "norms"


class PartSplit(Enum):
    """By what a part is dealt to the ranks of a stage."""

    QUERY_HEADS = "query heads"
    KV_HEADS = "key-value heads"  # copied where there are more ranks than heads
    WIDTH = "width"  # of the MLP, or of the vocabulary
    EXPERTS = "experts"
    WHOLE = "whole"  # every rank has it


@dataclass(frozen=True, slots=True)
class Part:
    """Some matrices of one layer, or of the model."""

    name: PartName
    num_parameters: int
    split: PartSplit
    unit: int = 1  # parameters of one head, one of the width, one expert


def embedding_part(shape: ModelShape) -> Part:
    """The embedding."""
    return Part(PartName.EMBEDDING, shape.vocab_size * shape.hidden_size, PartSplit.WIDTH, shape.hidden_size)


def head_part(shape: ModelShape) -> Part:
    """The output matrix, whether it is the embedding or not."""
    return Part(PartName.HEAD, shape.vocab_size * shape.hidden_size, PartSplit.WIDTH, shape.hidden_size)


def final_norm_part(shape: ModelShape) -> Part:
    """The norm before the head."""
    return Part(PartName.NORMS, shape.hidden_size, PartSplit.WHOLE)


def layer_parts(shape: ModelShape, layer: LayerShape) -> tuple[Part, ...]:
    """Everything in one layer."""
    return (*_attention(shape), *_feed_forward(shape.hidden_size, layer))


def model_parts(shape: ModelShape) -> Iterator[Part]:
    """Everything once: a tied head is not counted again."""
    yield embedding_part(shape)
    if not shape.is_tied:
        yield head_part(shape)
    yield final_norm_part(shape)
    for layer in shape.layers:
        yield from layer_parts(shape, layer)


def num_parameters(shape: ModelShape) -> int:
    """Of all parts."""
    return sum(part.num_parameters for part in model_parts(shape))


def num_active_parameters(shape: ModelShape) -> int:
    """Those that one token is multiplied with: of the experts the active ones, of the embedding nothing but a row."""
    active = sum(part.num_parameters for layer in shape.layers for part in active_layer_parts(shape, layer))
    return active + final_norm_part(shape).num_parameters + head_part(shape).num_parameters


def active_layer_parts(shape: ModelShape, layer: LayerShape) -> Iterator[Part]:
    """The parts of a layer as one token sees them."""
    for part in layer_parts(shape, layer):
        if part.split is PartSplit.EXPERTS and layer.experts:
            yield Part(part.name, layer.experts.num_active * part.unit, part.split, part.unit)
        else:
            yield part


def _attention(shape: ModelShape) -> Iterator[Part]:
    yield Part(PartName.NORMS, shape.norms_per_layer * shape.hidden_size, PartSplit.WHOLE)
    if isinstance(shape.attention, LatentAttention):
        yield from _latent_attention(shape.hidden_size, shape.attention)
    else:
        yield from _grouped_attention(shape.hidden_size, shape.attention)


def _grouped_attention(hidden_size: int, heads: GroupedAttention) -> Iterator[Part]:
    both = 2 * hidden_size * heads.head_dim  # query and output, key and value
    yield Part(PartName.ATTENTION, heads.num_heads * both, PartSplit.QUERY_HEADS, both)
    yield Part(PartName.ATTENTION, heads.num_kv_heads * both, PartSplit.KV_HEADS, both)
    if heads.norms_heads:
        yield Part(PartName.NORMS, 2 * heads.head_dim, PartSplit.WHOLE)


def _latent_attention(hidden_size: int, heads: LatentAttention) -> Iterator[Part]:
    """What makes the latent vectors, every rank has whole; what makes heads of them is dealt out."""
    query_inputs = heads.query_rank or hidden_size
    a_head = (
        query_inputs * (heads.nope_dim + heads.rope_dim)
        + heads.kv_rank * (heads.nope_dim + heads.value_dim)
        + heads.value_dim * hidden_size
    )
    yield Part(PartName.ATTENTION, heads.num_heads * a_head, PartSplit.QUERY_HEADS, a_head)
    latent = hidden_size * (heads.kv_rank + heads.rope_dim) + hidden_size * (heads.query_rank or 0)
    yield Part(PartName.ATTENTION, latent, PartSplit.WHOLE)
    yield Part(PartName.NORMS, heads.kv_rank + (heads.query_rank or 0), PartSplit.WHOLE)


def _feed_forward(hidden_size: int, layer: LayerShape) -> Iterator[Part]:
    """Gate, up and down."""
    unit = 3 * hidden_size
    if layer.experts is None:
        yield Part(PartName.MLP, layer.mlp_width * unit, PartSplit.WIDTH, unit)
    else:
        yield from _experts(hidden_size, layer.experts)


def _experts(hidden_size: int, experts: Experts) -> Iterator[Part]:
    an_expert = 3 * hidden_size * experts.width
    yield Part(PartName.EXPERTS, experts.num_experts * an_expert, PartSplit.EXPERTS, an_expert)
    if experts.shared_width:
        unit = 3 * hidden_size
        yield Part(PartName.SHARED_EXPERTS, experts.shared_width * unit, PartSplit.WIDTH, unit)
    router = experts.num_experts * (hidden_size + experts.has_bias)
    yield Part(PartName.ROUTER, router, PartSplit.WHOLE)
