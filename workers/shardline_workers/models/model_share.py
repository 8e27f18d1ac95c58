"""What of a model one rank has. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import lcm
from types import MappingProxyType

from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.input_blocks import InputBlocks
from shardline_workers.models.tensor_split import check_split
from shardline_workers.parallel.expert_placement import ExpertPlacement, PlacementWish, place_experts
from shardline_workers.parallel.head_split import HeadShard, split_heads
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.parallel.unit_spans import WIDTH_UNIT, unit_spans
from shardline_workers.weights.matrix_part import MatrixPart, SplitAxis

TILE_OUTPUTS = 16  # the least that kernels compute at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShare:
    """One rank's layers, and its part of every matrix in them."""

    position: RankPosition
    layers: range
    heads: HeadShard
    blocks: InputBlocks
    vocabularies: tuple[range, ...]  # token ids of each tensor-parallel rank: rows of embedding and head
    # Of each of its layers that has experts.
    placements: Mapping[int, ExpertPlacement] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        """For keys of caches: equal names mean equal parts of equal files, whichever the group."""
        if self.position.plan.ep == 1:
            return self.position.name
        experts = repr([(layer, self.experts(layer)) for layer in sorted(self.placements)])
        return f"{self.position.name}-{sha256(experts.encode()).hexdigest()[:16]}"

    @property
    def vocabulary(self) -> range:
        """Token ids of this rank."""
        return self.vocabularies[self.position.place]

    def attention_shape(self, whole: AttentionShape) -> AttentionShape:
        """The heads of one of its layers."""
        return replace(whole, num_heads=len(self.heads.query_heads), num_kv_heads=len(self.heads.kv_heads))

    def width_span(self, width: int) -> range:
        """Its part of an MLP's width.

        Raises:
            ValueError: it is too narrow for so many ranks.
        """
        return self._width_spans(width, self.position.plan.tp)[self.position.place]

    def experts(self, layer: int) -> tuple[int, ...]:
        """Its experts in a layer that has some, in ascending order."""
        return self.placements[layer].part_experts[self.position.expert_part]

    def part(self, name: str, shape: DecoderShape) -> MatrixPart | None:
        """Its part of one of its matrices, by our name (see tensor_names); None: all of it."""
        if self.position.plan.tp == 1:
            return None
        if shape.experts is not None and ".experts." in name:
            return self._expert_part(name, shape.experts)
        kind = name.rpartition(".")[2]
        if shape.experts is not None and kind.startswith("shared_"):
            return _gated_part(kind.removeprefix("shared_"), self.width_span(shape.experts.shared_width))
        return _gated_part(kind, self.width_span(shape.intermediate_size)) or self._other_part(kind, shape)

    def _expert_part(self, name: str, shape: ExpertsShape) -> MatrixPart | None:
        plan = self.position.plan
        if plan.expert_tp == 1:
            return None
        spans = self._width_spans(shape.width, plan.expert_tp)
        return _gated_part(name.rpartition(".")[2], spans[self.position.place % plan.expert_tp])

    def _width_spans(self, width: int, num_parts: int) -> tuple[range, ...]:
        block = self.blocks.width
        return unit_spans(width, num_parts, unit=lcm(WIDTH_UNIT, block), least=block)

    def _other_part(self, kind: str, shape: DecoderShape) -> MatrixPart | None:
        size = shape.attention.head_dim
        queries, keys = _times(self.heads.query_heads, size), _times(self.heads.kv_heads, size)
        parts = {
            "embedding": MatrixPart(SplitAxis.OUTPUTS, self.vocabulary),
            "lm_head": MatrixPart(SplitAxis.OUTPUTS, self.vocabulary),
            "query": MatrixPart(SplitAxis.OUTPUTS, queries),
            "key": MatrixPart(SplitAxis.OUTPUTS, keys),
            "value": MatrixPart(SplitAxis.OUTPUTS, keys),
            "attention_output": MatrixPart(SplitAxis.INPUTS, queries),  # of latent attention: see LatentReader
        }
        return parts.get(kind)


def share_of(
    shape: DecoderShape,
    position: RankPosition,
    layers: range,
    *,
    blocks: InputBlocks | None = None,
    wish: PlacementWish | None = None,
) -> ModelShare:
    """The share of a rank whose stage has these layers. Experts are dealt out as is wished.

    Args:
        shape: of the model.
        position: of the rank.
        layers: of its stage.
        blocks: where its matrices can be cut; None: anywhere.
        wish: which experts are to be where.

    Raises:
        ValueError: the model cannot be dealt to so many ranks.
    """
    plan, heads, blocks = position.plan, shape.attention, blocks or InputBlocks()
    check_split(shape, plan, blocks)
    return ModelShare(
        position=position,
        layers=layers,
        heads=split_heads(num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, num_ranks=plan.tp)[
            position.place
        ],
        blocks=blocks,
        vocabularies=unit_spans(shape.vocab_size, plan.tp, unit=TILE_OUTPUTS),
        placements=MappingProxyType(_placements(shape, layers, plan.ep, wish or PlacementWish())),
    )


def _placements(shape: DecoderShape, layers: range, num_parts: int, wish: PlacementWish) -> dict[int, ExpertPlacement]:
    if shape.experts is None:
        if num_parts > 1 or wish.num_redundant:
            raise ValueError(
                f"ep is {num_parts} with {wish.num_redundant} redundant copies of experts, but a {shape.family} model "
                "has no experts: take ep of 1 and no copies"
            )
        return {}
    return {
        layer: place_experts(
            shape.experts.num_experts, num_parts, loads=wish.loads_of(layer), num_redundant=wish.num_redundant
        )
        for layer in layers
        if shape.experts_of(layer) is not None
    }


def _gated_part(kind: str, width: range) -> MatrixPart | None:
    """A part of an MLP with a gate; None: it is another matrix."""
    if kind in ("gate", "up"):
        return MatrixPart(SplitAxis.OUTPUTS, width)
    return MatrixPart(SplitAxis.INPUTS, width) if kind == "down" else None


def _times(span: range, size: int) -> range:
    return range(span.start * size, span.stop * size)
