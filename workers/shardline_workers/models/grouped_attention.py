"""Attention whose query heads share key-value heads (GQA): one rank's heads of it, from normed rows to the delta."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import (
    AttentionShape,
    HeadNorms,
    KvCache,
    LinearInput,
    PackedLinear,
    RotaryTable,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttentionWeights:
    """A rank's heads of one layer."""

    qkv: PackedLinear  # hidden → query heads, key heads, value heads
    output: PackedLinear  # query heads → hidden
    norms: HeadNorms | None

    @property
    def reader(self) -> PackedLinear:
        """What reads the normed rows."""
        return self.qkv

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        if self.norms is not None:
            yield from (self.norms.queries, self.norms.keys)
        yield from (*self.qkv.tensors, *self.output.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttentionBuffers:
    """What lies between its calls, the same for all layers."""

    qkv: Tensor  # [max_tokens, qkv_size]
    queries: Tensor  # [max_tokens, query_size]
    attended: LinearInput  # [max_tokens, query_size]

    @classmethod
    def allocate(
        cls,
        shape: AttentionShape,
        layers: list[GroupedAttentionWeights],
        kernels: Kernels,
        *,
        max_tokens: int,
        device: torch.device,
    ) -> Self:
        """Buffers for a step of so many tokens."""
        formats = kernels.formats
        return cls(
            qkv=torch.empty((max_tokens, shape.qkv_size), dtype=formats.activations, device=device),
            queries=torch.empty((max_tokens, shape.query_size), dtype=formats.queries, device=device),
            attended=kernels.allocate_linear_input([layer.output for layer in layers], max_rows=max_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttention:
    """Implements `HalfLayer`."""

    shape: AttentionShape  # of this rank
    scores: ScoreRule
    weights: GroupedAttentionWeights
    buffers: GroupedAttentionBuffers
    cache: KvCache
    rotary: RotaryTable
    ranks: Communicator  # that have the other heads

    @property
    def reader(self) -> PackedLinear:
        """See `HalfLayer.reader`."""
        return self.weights.qkv

    @property
    def plain(self) -> Tensor | None:
        """See `HalfLayer.plain`."""
        return None

    def record(self, operations: Operations, normed: LinearInput, delta: Tensor, step: StepBuffers) -> None:
        """See `HalfLayer.record`."""
        buffers, weights = self.buffers, self.weights
        operations.linear(buffers.qkv, normed, weights.qkv, rows=Rows.TOKENS, step=step)
        operations.rotate_and_store(
            buffers.queries,
            buffers.qkv,
            self.cache,
            self.rotary,
            norms=weights.norms,
            shape=self.shape,
            step=step,
        )
        operations.attention(
            buffers.attended,
            buffers.queries,
            self.cache,
            shape=self.shape,
            scores=self.scores,
            reader=weights.output,
            step=step,
        )
        operations.linear(delta, buffers.attended, weights.output, rows=Rows.TOKENS, step=step)
        operations.all_reduce(delta, self.ranks, rows=Rows.TOKENS, step=step)
