"""Multi-head latent attention (MLA; DeepSeek-V2, arXiv 2405.04434): one rank's heads, from normed rows to the delta.

    normed ─▶ compress ─▶ latent of queries ─▶ norm ─▶ expand ─▶ query, with and without position
                      ├─▶ latent ─▶ norm ─┐
                      └─▶ shared key ─────┴─▶ the key of all heads, and their value

    query of a head = [with position | without position · its key matrix]     rope_dim + kv_rank
    key             = [with position | latent]
    value           = the key, whose first columns nobody reads

So a query and a key multiply as the head's own would, whatever the number of heads, and a token is cached once. Where
ranks share the heads each has the whole cache. See `latent_weights` for the matrices.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import (
    AttentionShape,
    KvCache,
    LinearInput,
    PackedLinear,
    RotaryTable,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.latent_shape import LatentShape
from shardline_workers.models.latent_weights import LatentAttentionWeights, QueryWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBuffers:
    """Of queries that are made in two steps."""

    latent: Tensor  # [max_tokens, query_rank]
    normed: LinearInput  # [max_tokens, query_rank]

    @classmethod
    def allocate(cls, layers: list[QueryWeights], kernels: Kernels, *, max_tokens: int, device: torch.device) -> Self:
        """Buffers for a step of so many tokens."""
        normed = kernels.allocate_linear_input([layer.expand for layer in layers], max_rows=max_tokens)
        size = (max_tokens, normed.num_inputs)
        return cls(latent=torch.empty(size, dtype=kernels.formats.activations, device=device), normed=normed)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttentionBuffers:
    """What lies between its calls, the same for all layers."""

    making: QueryBuffers | None
    latent: Tensor  # [max_tokens, kv_rank]
    nope: Tensor  # [max_tokens, heads, nope_dim]
    qk: Tensor  # [max_tokens, heads + 1, rope_dim + kv_rank]: all queries, then the key
    queries: Tensor  # [max_tokens, heads * (rope_dim + kv_rank)], turned
    attended: Tensor  # [max_tokens, heads, rope_dim + kv_rank]
    values: Tensor  # [max_tokens, heads, value_dim]
    attended_values: LinearInput  # [max_tokens, heads * value_dim]
    nope_room: LinearInput  # [max_tokens, nope_dim]
    latent_room: LinearInput  # [max_tokens, kv_rank]

    @classmethod
    def allocate(
        cls,
        latent: LatentShape,
        num_heads: int,
        layers: list[LatentAttentionWeights],
        *,
        kernels: Kernels,
        max_tokens: int,
        device: torch.device,
    ) -> Self:
        """Buffers for a step of so many tokens, and so many heads of this rank."""
        formats, size = kernels.formats, latent.rope_dim + latent.kv_rank
        making = [layer.queries for layer in layers if layer.queries is not None]

        def empty(*columns: int, dtype: torch.dtype = formats.activations) -> Tensor:
            return torch.empty((max_tokens, *columns), dtype=dtype, device=device)

        def room(readers: list[PackedLinear]) -> LinearInput:
            return kernels.allocate_linear_input(readers, max_rows=max_tokens)

        return cls(
            making=QueryBuffers.allocate(making, kernels, max_tokens=max_tokens, device=device) if making else None,
            latent=empty(latent.kv_rank),
            nope=empty(num_heads, latent.nope_dim),
            qk=empty(num_heads + 1, size),
            queries=empty(num_heads * size, dtype=formats.queries),
            attended=empty(num_heads, size),
            values=empty(num_heads, latent.value_dim),
            attended_values=room([layer.output for layer in layers]),
            nope_room=room([layer.absorb for layer in layers]),
            latent_room=room([layer.values for layer in layers]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Implements `HalfLayer`."""

    latent: LatentShape
    shape: AttentionShape  # of this rank, as `latent` tells it
    scores: ScoreRule
    weights: LatentAttentionWeights
    buffers: LatentAttentionBuffers
    cache: KvCache
    rotary: RotaryTable
    ranks: Communicator  # that have the other heads

    @property
    def reader(self) -> PackedLinear:
        """See `HalfLayer.reader`."""
        return self.weights.reader

    @property
    def plain(self) -> Tensor | None:
        """See `HalfLayer.plain`."""
        return None

    def record(self, operations: Operations, normed: LinearInput, delta: Tensor, step: StepBuffers) -> None:
        """See `HalfLayer.record`."""
        self._make_queries_and_key(operations, normed, step)
        self._attend(operations, step)
        buffers, output = self.buffers, self.weights.output
        operations.quantise(
            buffers.attended_values, buffers.values.flatten(1), rows=Rows.TOKENS, reader=output, step=step
        )
        operations.linear(delta, buffers.attended_values, output, rows=Rows.TOKENS, step=step)
        operations.all_reduce(delta, self.ranks, rows=Rows.TOKENS, step=step)

    def _make_queries_and_key(self, operations: Operations, normed: LinearInput, step: StepBuffers) -> None:
        """Fills `qk`."""
        buffers, weights = self.buffers, self.weights
        turning, absorbed = buffers.qk.tensor_split([self.latent.rope_dim], dim=-1)
        queries, key = (buffers.nope.flatten(1), turning[:, :-1]), turning[:, -1]
        made = queries if buffers.making is None else (buffers.making.latent,)
        operations.linear_apart((*made, buffers.latent, key), normed, weights.compress, step=step)
        if buffers.making is not None and weights.queries is not None:
            making, expand = buffers.making, weights.queries.expand
            self._norm(operations, making.normed, making.latent, weights.queries.norm, reader=expand, step=step)
            operations.linear_apart(queries, making.normed, expand, step=step)
        operations.head_linear(absorbed[:, :-1], buffers.nope, weights.absorb, room=buffers.nope_room, step=step)
        self._norm(
            operations,
            buffers.latent_room,
            buffers.latent,
            weights.kv_norm,
            reader=weights.values,
            plain=absorbed[:, -1],
            step=step,
        )

    def _attend(self, operations: Operations, step: StepBuffers) -> None:
        """From `qk` to `values`."""
        buffers, shape = self.buffers, self.shape
        operations.rotate_and_store(
            buffers.queries, buffers.qk.flatten(1), self.cache, self.rotary, shape=shape, step=step
        )
        operations.attention(
            buffers.attended.flatten(1),
            buffers.queries,
            self.cache,
            shape=shape,
            scores=self.scores,
            reader=None,
            step=step,
        )
        latents = buffers.attended[..., self.latent.rope_dim :]
        operations.head_linear(buffers.values, latents, self.weights.values, room=buffers.latent_room, step=step)

    def _norm(
        self,
        operations: Operations,
        out: LinearInput,
        x: Tensor,
        weight: Tensor,
        *,
        reader: PackedLinear,
        plain: Tensor | None = None,
        step: StepBuffers,
    ) -> None:
        operations.rms_norm(
            out,
            x,
            None,
            weight,
            epsilon=self.latent.norm_epsilon,
            rows=Rows.TOKENS,
            reader=reader,
            plain=plain,
            step=step,
        )
