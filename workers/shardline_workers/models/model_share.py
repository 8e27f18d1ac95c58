"""What of a model one rank has. Pure."""

from dataclasses import dataclass

from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.parallel.head_split import HeadShard, split_heads
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.parallel.unit_spans import unit_spans
from shardline_workers.weights.matrix_part import MatrixPart, SplitAxis

TILE_OUTPUTS = 16  # the least that kernels compute at once
BLOCK_INPUTS = 32  # inputs that share a scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShare:
    """One rank's layers, and its part of every matrix in them."""

    position: RankPosition
    layers: range
    heads: HeadShard
    vocabularies: tuple[range, ...]  # token ids of each tensor-parallel rank: rows of embedding and head

    @property
    def is_whole(self) -> bool:
        """Whether there is no other rank."""
        return self.position.plan.num_ranks == 1

    @property
    def vocabulary(self) -> range:
        """Token ids of this rank."""
        return self.vocabularies[self.position.place]

    def attention_shape(self, whole: AttentionShape) -> AttentionShape:
        """The heads of one of its layers."""
        return AttentionShape(
            num_heads=len(self.heads.query_heads),
            num_kv_heads=len(self.heads.kv_heads),
            head_dim=whole.head_dim,
        )

    def width_span(self, width: int) -> range:
        """Its part of an MLP's width.

        Raises:
            ValueError: it is too narrow for so many ranks.
        """
        return unit_spans(width, self.position.plan.tp, unit=BLOCK_INPUTS)[self.position.place]

    def part(self, name: str, shape: DecoderShape) -> MatrixPart | None:
        """Its part of a matrix, by the last part of its name (see tensor_names); None: all of it."""
        if self.position.plan.tp == 1:
            return None
        size = shape.attention.head_dim
        queries, keys = _times(self.heads.query_heads, size), _times(self.heads.kv_heads, size)
        width = self.width_span(shape.intermediate_size)
        parts = {
            "embedding": MatrixPart(SplitAxis.OUTPUTS, self.vocabulary),
            "lm_head": MatrixPart(SplitAxis.OUTPUTS, self.vocabulary),
            "query": MatrixPart(SplitAxis.OUTPUTS, queries),
            "key": MatrixPart(SplitAxis.OUTPUTS, keys),
            "value": MatrixPart(SplitAxis.OUTPUTS, keys),
            "attention_output": MatrixPart(SplitAxis.INPUTS, queries),
            "gate": MatrixPart(SplitAxis.OUTPUTS, width),
            "up": MatrixPart(SplitAxis.OUTPUTS, width),
            "down": MatrixPart(SplitAxis.INPUTS, width),
        }
        return parts.get(name)


def share_of(shape: DecoderShape, position: RankPosition, layers: range) -> ModelShare:
    """The share of a rank whose stage has these layers.

    Raises:
        ValueError: the model cannot be dealt to so many ranks.
    """
    plan, heads = position.plan, shape.attention
    return ModelShare(
        position=position,
        layers=layers,
        heads=split_heads(num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, num_ranks=plan.tp)[
            position.place
        ],
        vocabularies=unit_spans(shape.vocab_size, plan.tp, unit=TILE_OUTPUTS),
    )


def _times(span: range, size: int) -> range:
    return range(span.start * size, span.stop * size)
