"""One rank's weights of a decoder in the layout of its kernels. Matrices that are read together are stored as one."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import HeadNorms, PackedExpert, PackedLinear
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.experts import ExpertsWeights
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.gated_mlp import GatedMlpWeights
from shardline_workers.models.grouped_attention import GroupedAttentionWeights
from shardline_workers.models.latent_weights import LatentAttentionWeights, LatentReader
from shardline_workers.models.model_share import ModelShare
from shardline_workers.weights.weight_loader import LoadableMatrix, WeightLoader

_ROTARY_FACTORS = "rotary_factors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer. Norms are in the model's dtype."""

    attention_norm: Tensor  # [hidden]
    attention: GroupedAttentionWeights | LatentAttentionWeights
    attention_delta_norm: Tensor | None  # [hidden]
    mlp_norm: Tensor  # [hidden]
    mlp: GatedMlpWeights | ExpertsWeights
    mlp_delta_norm: Tensor | None  # [hidden]

    def readers(self) -> Iterator[PackedLinear]:
        """The matrices that read normed rows."""
        yield from (self.attention.reader, self.mlp.reader)

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield from (self.attention_norm, self.mlp_norm)
        yield from (norm for norm in (self.attention_delta_norm, self.mlp_delta_norm) if norm is not None)
        yield from (*self.attention.tensors(), *self.mlp.tensors())


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWeights:
    """What one rank has of the model; None is what its pipeline stage does not have."""

    embedding: PackedLinear | None  # hidden → the rank's vocabulary, read by rows
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor | None  # [hidden]
    lm_head: PackedLinear | None  # hidden → the rank's vocabulary; the embedding itself where they are tied
    rotary_factors: Tensor | None  # [rotary_dim / 2] float32

    def num_bytes(self) -> int:
        """Memory of all weights, a tied one counted once."""
        storages = {tensor.data_ptr(): tensor.nbytes for tensor in self._tensors()}
        return sum(storages.values())

    def _tensors(self) -> Iterator[Tensor]:
        if self.final_norm is not None:
            yield self.final_norm
        for matrix in (self.embedding, self.lm_head):
            yield from () if matrix is None else matrix.tensors
        for layer in self.layers:
            yield from layer.tensors()


def load_decoder_weights(
    shape: DecoderShape, share: ModelShare, loader: WeightLoader, kernels: Kernels
) -> DecoderWeights:
    """Checks the checkpoint against the shape and reads the rank's share of it, layer by layer.

    Raises:
        ModelFileError: a tensor is missing, misshapen, not used, or stored in a type that cannot be read.
    """
    has_factors = shape.rotary.scaling is None and loader.has(_ROTARY_FACTORS)
    expected = shape.tensor_shapes()
    if has_factors:
        expected[_ROTARY_FACTORS] = (shape.rotary.rotary_dim // 2,)
    loader.check(
        expected,
        unread=frozenset({"lm_head"}) if shape.is_tied else frozenset(),
        unread_layers=range(shape.num_layers, shape.num_layers + shape.num_draft_layers),
    )
    reader = _ShareReader(shape, share, loader, kernels)
    embedding = reader.matrix("embedding") if share.position.is_first_stage else None
    weights = DecoderWeights(
        embedding=embedding,
        layers=tuple(reader.layer(number) for number in share.layers),
        final_norm=reader.norm("final_norm") if share.position.is_last_stage else None,
        lm_head=reader.head(embedding) if share.position.is_last_stage else None,
        rotary_factors=loader.tensor(_ROTARY_FACTORS, dtype=torch.float32) if has_factors else None,
    )
    kernels.finish_packing()
    return weights


class _ShareReader:
    """Reads one rank's part of each tensor."""

    def __init__(self, shape: DecoderShape, share: ModelShare, loader: WeightLoader, kernels: Kernels) -> None:
        self._shape, self._share = shape, share
        self._loader, self._kernels = loader, kernels

    def matrix(self, name: str) -> PackedLinear:
        """A matrix that is read alone."""
        return self._kernels.pack_linear([self._loadable(name)])

    def head(self, embedding: PackedLinear | None) -> PackedLinear:
        """The output matrix. One that is the embedding is read again only where another stage has that."""
        if not self._shape.is_tied:
            return self.matrix("lm_head")
        return embedding if embedding is not None else self.matrix("embedding")

    def norm(self, name: str) -> Tensor:
        """A norm's weights, whole: the sum is rounded once, to the model's dtype."""
        if self._shape.norm_offset == 0:
            return self._loader.tensor(name)
        offset = self._shape.norm_offset
        return (self._loader.tensor(name, dtype=torch.float64) + offset).to(self._loader.dtype)

    def layer(self, number: int) -> LayerWeights:
        """A whole layer."""
        experts = self._shape.experts_of(number)
        prefix, has_delta_norms = f"layers.{number}", self._shape.style.norms_deltas
        return LayerWeights(
            attention_norm=self.norm(f"{prefix}.attention_norm"),
            attention=self._attention(prefix),
            attention_delta_norm=self.norm(f"{prefix}.attention_delta_norm") if has_delta_norms else None,
            mlp_norm=self.norm(f"{prefix}.mlp_norm"),
            mlp=self._mlp(f"{prefix}.") if experts is None else self._experts(number, experts),
            mlp_delta_norm=self.norm(f"{prefix}.mlp_delta_norm") if has_delta_norms else None,
        )

    def _attention(self, prefix: str) -> GroupedAttentionWeights | LatentAttentionWeights:
        if self._shape.latent is not None:
            heads = self._share.heads.query_heads
            return LatentReader(self._shape.latent, heads, self._loader, self._kernels).read(prefix)
        names = (f"{prefix}.{name}" for name in ("query", "key", "value"))
        return GroupedAttentionWeights(
            qkv=self._kernels.pack_linear([self._loadable(name) for name in names]),
            output=self.matrix(f"{prefix}.attention_output"),
            norms=self._head_norms(prefix) if self._shape.style.norms_heads else None,
        )

    def _head_norms(self, prefix: str) -> HeadNorms:
        queries, keys = (self.norm(f"{prefix}.{name}") for name in ("query_norm", "key_norm"))
        return HeadNorms(queries=queries, keys=keys, epsilon=self._shape.norm_epsilon)

    def _mlp(self, prefix: str) -> GatedMlpWeights:
        return GatedMlpWeights(
            gate_up=self._kernels.pack_gated(self._loadable(f"{prefix}gate"), self._loadable(f"{prefix}up")),
            down=self.matrix(f"{prefix}down"),
        )

    def _experts(self, layer: int, shape: ExpertsShape) -> ExpertsWeights:
        prefix = f"layers.{layer}"
        return ExpertsWeights(
            router=self._loader.tensor(f"{prefix}.router"),
            router_bias=self._loader.tensor(f"{prefix}.router_bias", dtype=torch.float32) if shape.has_bias else None,
            experts=tuple(self._expert(prefix, number) for number in self._share.experts(layer)),
            shared=self._mlp(f"{prefix}.shared_") if shape.shared_width else None,
        )

    def _expert(self, prefix: str, number: int) -> PackedExpert:
        mlp = self._mlp(f"{prefix}.experts.{number}.")
        return PackedExpert(expert_id=number, gate_up=mlp.gate_up, down=mlp.down)

    def _loadable(self, name: str) -> LoadableMatrix:
        return self._loader.matrix(name, self._share.part(name, self._shape))
