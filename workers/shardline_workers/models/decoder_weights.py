"""All weights of a decoder in the layout of its kernels. Matrices that are read together are stored as one."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels, PackedLinear
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.weights.weight_loader import WeightLoader

_ROTARY_FACTORS = "rotary_factors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer. Norms are in the model's dtype."""

    attention_norm: Tensor  # [hidden]
    qkv: PackedLinear  # hidden → query heads, key heads, value heads
    attention_output: PackedLinear  # query heads → hidden
    mlp_norm: Tensor  # [hidden]
    gate_up: PackedLinear  # hidden → gate, up
    down: PackedLinear  # intermediate → hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWeights:
    """The whole model."""

    embedding: Tensor  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor  # [hidden]
    lm_head: PackedLinear  # hidden → vocab; the embedding itself where they are tied
    rotary_factors: Tensor | None  # [rotary_dim / 2] float32

    def num_bytes(self) -> int:
        """Memory of all weights, a tied one counted once."""
        storages = {tensor.data_ptr(): tensor.nbytes for tensor in self._tensors()}
        return sum(storages.values())

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.embedding, self.final_norm, *self.lm_head.tensors)
        for layer in self.layers:
            yield from (layer.attention_norm, layer.mlp_norm)
            for linear in (layer.qkv, layer.attention_output, layer.gate_up, layer.down):
                yield from linear.tensors


def load_decoder_weights(shape: DecoderShape, loader: WeightLoader, kernels: Kernels) -> DecoderWeights:
    """Checks the checkpoint against the shape and reads it, layer by layer.

    Raises:
        ModelFileError: a tensor is missing, misshapen, not used, or stored in a type that cannot be read.
    """
    has_factors = shape.rotary.scaling is None and loader.has(_ROTARY_FACTORS)
    expected = shape.tensor_shapes()
    if has_factors:
        expected[_ROTARY_FACTORS] = (shape.rotary.rotary_dim // 2,)
    loader.check(expected, unread=frozenset({"lm_head"}) if shape.is_tied else frozenset())
    embedding = loader.tensor("embedding")
    return DecoderWeights(
        embedding=embedding,
        layers=tuple(_load_layer(f"layers.{number}", loader, kernels) for number in range(shape.num_layers)),
        final_norm=loader.tensor("final_norm"),
        lm_head=kernels.pack_linear(embedding if shape.is_tied else loader.tensor("lm_head")),
        rotary_factors=loader.tensor(_ROTARY_FACTORS, dtype=torch.float32) if has_factors else None,
    )


def _load_layer(prefix: str, loader: WeightLoader, kernels: Kernels) -> LayerWeights:
    def packed(*names: str) -> PackedLinear:
        parts = [loader.tensor(f"{prefix}.{name}") for name in names]
        return kernels.pack_linear(parts[0] if len(parts) == 1 else torch.cat(parts))

    return LayerWeights(
        attention_norm=loader.tensor(f"{prefix}.attention_norm"),
        qkv=packed("query", "key", "value"),
        attention_output=packed("attention_output"),
        mlp_norm=loader.tensor(f"{prefix}.mlp_norm"),
        gate_up=packed("gate", "up"),
        down=packed("down"),
    )
