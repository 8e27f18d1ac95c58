"""All weights of a decoder in the layout of its kernels. Matrices that are read together are stored as one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import HeadNorms, PackedLinear
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.weights.rank_slice import MatrixSplit, decoder_splits
from shardline_workers.weights.weight_loader import LoadableMatrix, WeightLoader

_ROTARY_FACTORS = "rotary_factors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer. Norms are in the model's dtype."""

    attention_norm: Tensor  # [hidden]
    head_norms: HeadNorms | None
    qkv: PackedLinear  # hidden → query heads, key heads, value heads
    attention_output: PackedLinear  # query heads → hidden
    attention_delta_norm: Tensor | None  # [hidden]
    mlp_norm: Tensor  # [hidden]
    gate_up: PackedLinear  # hidden → gate, up; made by `pack_gated`
    down: PackedLinear  # intermediate → hidden
    mlp_delta_norm: Tensor | None  # [hidden]

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield from (self.attention_norm, self.mlp_norm)
        if self.head_norms is not None:
            yield from (self.head_norms.queries, self.head_norms.keys)
        yield from (norm for norm in (self.attention_delta_norm, self.mlp_delta_norm) if norm is not None)
        for linear in (self.qkv, self.attention_output, self.gate_up, self.down):
            yield from linear.tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWeights:
    """The whole model."""

    embedding: PackedLinear  # hidden → vocab, read by rows
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor  # [hidden]
    lm_head: PackedLinear  # hidden → vocab; the embedding itself where they are tied
    rotary_factors: Tensor | None  # [rotary_dim / 2] float32

    def num_bytes(self) -> int:
        """Memory of all weights, a tied one counted once."""
        storages = {tensor.data_ptr(): tensor.nbytes for tensor in self._tensors()}
        return sum(storages.values())

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.final_norm, *self.embedding.tensors, *self.lm_head.tensors)
        for layer in self.layers:
            yield from layer.tensors()


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
    heads = shape.attention
    splits = decoder_splits(num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, head_dim=heads.head_dim)
    embedding = kernels.pack_linear([loader.matrix("embedding")])
    weights = DecoderWeights(
        embedding=embedding,
        layers=tuple(
            _load_layer(shape, f"layers.{number}", loader, kernels=kernels, splits=splits)
            for number in range(shape.num_layers)
        ),
        final_norm=_load_norm(shape, "final_norm", loader),
        lm_head=embedding if shape.is_tied else kernels.pack_linear([loader.matrix("lm_head", splits["lm_head"])]),
        rotary_factors=loader.tensor(_ROTARY_FACTORS, dtype=torch.float32) if has_factors else None,
    )
    kernels.finish_packing()
    return weights


def _load_layer(
    shape: DecoderShape, prefix: str, loader: WeightLoader, *, kernels: Kernels, splits: Mapping[str, MatrixSplit]
) -> LayerWeights:
    def matrix(name: str) -> LoadableMatrix:
        return loader.matrix(f"{prefix}.{name}", splits[name])

    def norm(name: str) -> Tensor:
        return _load_norm(shape, f"{prefix}.{name}", loader)

    style = shape.style
    return LayerWeights(
        attention_norm=norm("attention_norm"),
        head_norms=_load_head_norms(shape, prefix, loader) if style.norms_heads else None,
        qkv=kernels.pack_linear([matrix("query"), matrix("key"), matrix("value")]),
        attention_output=kernels.pack_linear([matrix("attention_output")]),
        attention_delta_norm=norm("attention_delta_norm") if style.norms_deltas else None,
        mlp_norm=norm("mlp_norm"),
        gate_up=kernels.pack_gated(matrix("gate"), matrix("up")),
        down=kernels.pack_linear([matrix("down")]),
        mlp_delta_norm=norm("mlp_delta_norm") if style.norms_deltas else None,
    )


def _load_head_norms(shape: DecoderShape, prefix: str, loader: WeightLoader) -> HeadNorms:
    queries, keys = (_load_norm(shape, f"{prefix}.{name}", loader) for name in ("query_norm", "key_norm"))
    return HeadNorms(queries=queries, keys=keys, epsilon=shape.norm_epsilon)


def _load_norm(shape: DecoderShape, name: str, loader: WeightLoader) -> Tensor:
    """A norm's weights, whole: the sum is rounded once, to the model's dtype."""
    if shape.norm_offset == 0:
        return loader.tensor(name)
    return (loader.tensor(name, dtype=torch.float64) + shape.norm_offset).to(loader.dtype)
