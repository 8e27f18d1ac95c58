"""From a rank's weights to its decoder: buffers, tables and caches for every kind of half layer."""

import torch
from torch import Tensor

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.models.activations import Activations
from shardline_workers.models.attention_building import AttentionBuilder
from shardline_workers.models.decoder import Decoder, DecoderLayer
from shardline_workers.models.decoder_room import DecoderRoom
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights
from shardline_workers.models.half_layer import HalfLayer
from shardline_workers.models.mlp_building import MlpBuilder
from shardline_workers.models.model_share import ModelShare


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
        attention = AttentionBuilder(
            self._shape, self._share, self._weights, kernels=self._kernels, groups=self._groups, device=self._device
        ).layers(room)
        counts = self._expert_counts()
        mlps = self._mlps(room, counts)
        layers = tuple(
            DecoderLayer(
                attention_norm=layer.attention_norm,
                attention=attention(number, layer.attention),
                attention_delta_norm=layer.attention_delta_norm,
                mlp_norm=layer.mlp_norm,
                mlp=mlp,
                mlp_delta_norm=layer.mlp_delta_norm,
            )
            for number, layer, mlp in zip(self._share.layers, self._weights.layers, mlps, strict=True)
        )
        return Decoder(
            self._shape,
            self._weights,
            layers,
            share=self._share,
            groups=self._groups,
            activations=activations,
            expert_counts=counts,
        )

    def _expert_counts(self) -> Tensor | None:
        experts = self._shape.experts
        if experts is None:
            return None
        return torch.zeros((len(self._share.layers), experts.num_experts), dtype=torch.int64, device=self._device)

    def _mlps(self, room: DecoderRoom, counts: Tensor | None) -> tuple[HalfLayer, ...]:
        builder = MlpBuilder(
            self._shape,
            self._share,
            kernels=self._kernels,
            groups=self._groups,
            max_tokens=room.max_tokens,
            device=self._device,
        )
        return builder.layers([layer.mlp for layer in self._weights.layers], counts=counts)
