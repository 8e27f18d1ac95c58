"""The attention of a rank's layers: its caches, its angles, and the buffers that layers share."""

from collections.abc import Callable, Mapping

import torch

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import KvCache, RotaryTable, ScoreRule
from shardline_workers.models.decoder_room import DecoderRoom
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights
from shardline_workers.models.grouped_attention import (
    GroupedAttention,
    GroupedAttentionBuffers,
    GroupedAttentionWeights,
)
from shardline_workers.models.half_layer import HalfLayer
from shardline_workers.models.latent_attention import LatentAttention, LatentAttentionBuffers
from shardline_workers.models.latent_shape import LatentShape
from shardline_workers.models.latent_weights import LatentAttentionWeights
from shardline_workers.models.model_share import ModelShare
from shardline_workers.models.rotary import RotarySpec, rotary_table

AttentionWeights = GroupedAttentionWeights | LatentAttentionWeights
MakeAttention = Callable[[int, AttentionWeights], HalfLayer]  # of a layer's number and weights


class AttentionBuilder:
    """Makes attention of one kind for all layers."""

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
        self._shape, self._weights = shape, weights
        self._heads = share.attention_shape(shape.attention)
        self._kernels, self._groups, self._device = kernels, groups, device

    def layers(self, room: DecoderRoom) -> MakeAttention:
        """Allocates tables and buffers, and with each layer its cache."""
        latent = self._shape.latent
        return self._grouped(room) if latent is None else self._latent(latent, room)

    def _grouped(self, room: DecoderRoom) -> MakeAttention:
        rotary = self._rotary_tables(room.max_len)
        layers = [layer.attention for layer in self._weights.layers]
        buffers = GroupedAttentionBuffers.allocate(
            self._heads,
            [layer for layer in layers if isinstance(layer, GroupedAttentionWeights)],
            self._kernels,
            max_tokens=room.max_tokens,
            device=self._device,
        )

        def make(number: int, weights: AttentionWeights) -> HalfLayer:
            assert isinstance(weights, GroupedAttentionWeights), "all layers attend in one way"
            return GroupedAttention(
                shape=self._heads,
                scores=self._scores_of(number),
                weights=weights,
                buffers=buffers,
                cache=self._cache(room),
                rotary=rotary[self._shape.rotary_of(number)],
                ranks=self._groups.tensor,
            )

        return make

    def _latent(self, latent: LatentShape, room: DecoderRoom) -> MakeAttention:
        rotary = self._rotary_tables(room.max_len)
        layers = [layer.attention for layer in self._weights.layers]
        buffers = LatentAttentionBuffers.allocate(
            latent,
            self._heads.num_heads,
            [layer for layer in layers if isinstance(layer, LatentAttentionWeights)],
            kernels=self._kernels,
            max_tokens=room.max_tokens,
            device=self._device,
        )

        def make(number: int, weights: AttentionWeights) -> HalfLayer:
            assert isinstance(weights, LatentAttentionWeights), "all layers attend in one way"
            return LatentAttention(
                latent=latent,
                shape=self._heads,
                scores=self._scores_of(number),
                weights=weights,
                buffers=buffers,
                cache=self._cache(room),
                rotary=rotary[self._shape.rotary_of(number)],
                ranks=self._groups.tensor,
            )

        return make

    def _cache(self, room: DecoderRoom) -> KvCache:
        return self._kernels.allocate_kv_cache(self._heads, num_blocks=room.num_blocks, block_size=room.block_size)

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
