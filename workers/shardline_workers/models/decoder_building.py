"""From a rank's weights to its decoder: buffers, tables and caches for every kind of half layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import KvCache, RotaryTable, ScoreRule
from shardline_workers.models.activations import Activations
from shardline_workers.models.decoder import Decoder, DecoderLayer
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights, LayerWeights
from shardline_workers.models.grouped_attention import GroupedAttention, GroupedAttentionBuffers
from shardline_workers.models.half_layer import HalfLayer
from shardline_workers.models.mlp_building import MlpBuilder
from shardline_workers.models.model_share import ModelShare
from shardline_workers.models.rotary import RotarySpec, rotary_table


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderRoom:
    """How large steps and caches are."""

    max_tokens: int  # of one step
    max_sampled: int  # rows of logits of one step
    max_len: int  # positions of a sequence
    num_blocks: int  # of the KV cache
    block_size: int  # tokens


def kv_block_bytes(shape: DecoderShape, share: ModelShare, kernels: Kernels, *, block_size: int) -> int:
    """Memory that one block of the KV cache takes in all layers of a rank."""
    heads = share.attention_shape(shape.attention)
    return len(share.layers) * kernels.kv_block_bytes(heads, block_size=block_size)


class DecoderBuilder:
    """Puts one rank's decoder together."""

    def __init__(
        self,
        shape: DecoderShape,
        share: ModelShare,
        weights: DecoderWeights,
        *,
        kernels: Kernels,
        groups: RankGroups,
        device: torch.device,
    ) -> None:
        self._shape, self._share, self._weights = shape, share, weights
        self._kernels, self._groups, self._device = kernels, groups, device

    def build(self, room: DecoderRoom, activations: Activations) -> Decoder:
        """Allocates caches and tables, and the buffers of half layers."""
        rotary = self._rotary_tables(room.max_len)
        heads = self._share.attention_shape(self._shape.attention)
        attentions = [layer.attention for layer in self._weights.layers]
        attention_buffers = GroupedAttentionBuffers.allocate(
            heads, attentions, self._kernels, max_tokens=room.max_tokens, device=self._device
        )

        def attention(number: int, layer: LayerWeights) -> HalfLayer:
            return GroupedAttention(
                shape=heads,
                scores=self._scores_of(number),
                weights=layer.attention,
                buffers=attention_buffers,
                cache=self._cache(room),
                rotary=rotary[self._shape.rotary_of(number)],
                ranks=self._groups.tensor,
            )

        layers = tuple(
            DecoderLayer(
                attention_norm=layer.attention_norm,
                attention=attention(number, layer),
                attention_delta_norm=layer.attention_delta_norm,
                mlp_norm=layer.mlp_norm,
                mlp=mlp,
                mlp_delta_norm=layer.mlp_delta_norm,
            )
            for number, layer, mlp in zip(self._share.layers, self._weights.layers, self._mlps(room), strict=True)
        )
        return Decoder(
            self._shape, self._weights, layers, share=self._share, groups=self._groups, activations=activations
        )

    def _mlps(self, room: DecoderRoom) -> tuple[HalfLayer, ...]:
        experts, weights = self._shape.experts, [layer.mlp for layer in self._weights.layers]
        counts = None
        if experts is not None:
            counts = torch.zeros((len(weights), experts.num_experts), dtype=torch.int64, device=self._device)
        builder = MlpBuilder(
            self._shape, kernels=self._kernels, groups=self._groups, max_tokens=room.max_tokens, device=self._device
        )
        return builder.layers(weights, counts=counts)

    def _cache(self, room: DecoderRoom) -> KvCache:
        heads = self._share.attention_shape(self._shape.attention)
        return self._kernels.allocate_kv_cache(heads, num_blocks=room.num_blocks, block_size=room.block_size)

    def _scores_of(self, layer: int) -> ScoreRule:
        divisor = self._shape.score_divisor or self._shape.attention.head_dim
        return ScoreRule(scale=divisor**-0.5, window=self._shape.window_of(layer), softcap=self._shape.score_softcap)

    def _rotary_tables(self, max_len: int) -> Mapping[RotarySpec, RotaryTable]:
        """Angles for every way in which heads turn. Factors of a GGUF file belong to layers that see everything."""
        shape, dtype = self._shape, self._kernels.formats.activations
        return {
            spec: rotary_table(
                spec,
                max_len,
                dtype=dtype,
                device=self._device,
                factors=self._weights.rotary_factors if spec == shape.rotary else None,
            )
            for spec in shape.rotaries
        }
