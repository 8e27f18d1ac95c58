"""The decoder: a Llama-like stack of layers as one sequence of kernel calls, the same for every step.

residual ─▶ norm ─▶ qkv ─▶ rotate, store ─▶ attention ─▶ output ─▶ (+) norm ─▶ gate_up, act ─▶ down ─▶ (+)

Some families norm heads before they rotate, and what comes to each (+) before it is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import KvCache, LinearInput, PackedLinear, RotaryTable, Rows, ScoreRule
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights, LayerWeights
from shardline_workers.models.rotary import RotarySpec, rotary_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """What lies between operations, at its largest."""

    residual: Tensor  # [max_tokens, hidden]
    normed: LinearInput  # [max_tokens, hidden]
    delta: Tensor  # [max_tokens, hidden]: what a half layer adds to the residual
    qkv: Tensor  # [max_tokens, qkv_size]
    queries: Tensor  # [max_tokens, query_size]
    attended: LinearInput  # [max_tokens, query_size]
    activated: LinearInput  # [max_tokens, intermediate]
    sampled: LinearInput  # [max_sampled, hidden]
    logits: Tensor  # [max_sampled, vocab]

    @classmethod
    def allocate(
        cls,
        shape: DecoderShape,
        weights: DecoderWeights,
        kernels: Kernels,
        *,
        max_tokens: int,
        max_sampled: int,
        device: torch.device,
    ) -> "Activations":
        """Buffers for a step of so many tokens and rows of logits."""
        formats, layers = kernels.formats, weights.layers

        def empty(rows: int, columns: int, dtype: torch.dtype = formats.activations) -> Tensor:
            return torch.empty((rows, columns), dtype=dtype, device=device)

        def linear_input(*readers: PackedLinear) -> LinearInput:
            return kernels.allocate_linear_input(readers, max_rows=max_tokens)

        return cls(
            residual=empty(max_tokens, shape.hidden_size),
            normed=linear_input(*(reader for layer in layers for reader in (layer.qkv, layer.gate_up))),
            delta=empty(max_tokens, shape.hidden_size),
            qkv=empty(max_tokens, shape.attention.qkv_size),
            queries=empty(max_tokens, shape.attention.query_size, formats.queries),
            attended=linear_input(*(layer.attention_output for layer in layers)),
            activated=linear_input(*(layer.down for layer in layers)),
            sampled=kernels.allocate_linear_input([weights.lm_head], max_rows=max_sampled),
            logits=empty(max_sampled, shape.vocab_size),
        )

    def num_bytes(self) -> int:
        """Memory of all buffers."""
        buffers = [getattr(self, field.name) for field in fields(self)]
        return sum(buffer.rows.nbytes if isinstance(buffer, LinearInput) else buffer.nbytes for buffer in buffers)


@dataclass(frozen=True, slots=True)
class Delta:
    """What a half layer has left to be added to the residual, and the norm that it gets before, if any."""

    rows: Tensor  # [max_tokens, hidden]
    norm: Tensor | None  # [hidden]


class Decoder:
    """Weights, buffers and the order of calls. It holds no state of a step but its activations."""

    def __init__(
        self,
        shape: DecoderShape,
        weights: DecoderWeights,
        *,
        rotary: Mapping[RotarySpec, RotaryTable],
        activations: Activations,
    ) -> None:
        """Takes all parts.

        Args:
            shape: sizes and constants.
            weights: of that shape.
            rotary: a table for each of `shape.rotaries`, see `rotary_tables`.
            activations: buffers.
        """
        self.shape = shape
        self.activations = activations
        self._weights = weights
        self._rotary = rotary

    def forward(self, operations: Operations, step: StepBuffers, caches: tuple[KvCache, ...]) -> None:
        """Computes the step's tokens: keys and values into the caches, logits of sampled rows into the activations.

        Args:
            operations: make the calls, or record them.
            step: the batch.
            caches: one for each layer.
        """
        buffers, weights = self.activations, self._weights
        operations.embedding(buffers.residual, weights.embedding, scale=self.shape.embedding_scale, step=step)
        delta = None
        for number, (layer, cache) in enumerate(zip(weights.layers, caches, strict=True)):
            self._norm(operations, delta, layer.attention_norm, reader=layer.qkv, step=step)
            self._attention(operations, number, cache, step)
            delta = Delta(buffers.delta, layer.attention_delta_norm)
            self._norm(operations, delta, layer.mlp_norm, reader=layer.gate_up, step=step)
            self._mlp(operations, layer, step)
            delta = Delta(buffers.delta, layer.mlp_delta_norm)
        self._head(operations, delta, step)

    def _attention(self, operations: Operations, number: int, cache: KvCache, step: StepBuffers) -> None:
        buffers, shape, layer = self.activations, self.shape.attention, self._weights.layers[number]
        operations.linear(buffers.qkv, buffers.normed, layer.qkv, rows=Rows.TOKENS, step=step)
        operations.rotate_and_store(
            buffers.queries,
            buffers.qkv,
            cache,
            self._rotary[self.shape.rotary_of(number)],
            norms=layer.head_norms,
            shape=shape,
            step=step,
        )
        output, scores = layer.attention_output, self._scores_of(number)
        operations.attention(
            buffers.attended, buffers.queries, cache, shape=shape, scores=scores, reader=output, step=step
        )
        operations.linear(buffers.delta, buffers.attended, output, rows=Rows.TOKENS, step=step)

    def _scores_of(self, layer: int) -> ScoreRule:
        divisor = self.shape.score_divisor or self.shape.attention.head_dim
        return ScoreRule(scale=divisor**-0.5, window=self.shape.window_of(layer), softcap=self.shape.score_softcap)

    def _mlp(self, operations: Operations, layer: LayerWeights, step: StepBuffers) -> None:
        buffers = self.activations
        operations.gated_linear(
            buffers.activated,
            buffers.normed,
            layer.gate_up,
            activation=self.shape.style.activation,
            reader=layer.down,
            step=step,
        )
        operations.linear(buffers.delta, buffers.activated, layer.down, rows=Rows.TOKENS, step=step)

    def _norm(
        self, operations: Operations, delta: Delta | None, weight: Tensor, *, reader: PackedLinear, step: StepBuffers
    ) -> None:
        operations.rms_norm(
            self.activations.normed,
            self.activations.residual,
            None if delta is None else delta.rows,
            weight,
            delta_weight=None if delta is None else delta.norm,
            epsilon=self.shape.norm_epsilon,
            rows=Rows.TOKENS,
            reader=reader,
            step=step,
        )

    def _head(self, operations: Operations, delta: Delta | None, step: StepBuffers) -> None:
        buffers, weights = self.activations, self._weights
        operations.rms_norm(
            buffers.sampled,
            buffers.residual,
            None if delta is None else delta.rows,
            weights.final_norm,
            delta_weight=None if delta is None else delta.norm,
            epsilon=self.shape.norm_epsilon,
            rows=Rows.SAMPLED,
            reader=weights.lm_head,
            step=step,
        )
        operations.linear(buffers.logits, buffers.sampled, weights.lm_head, rows=Rows.SAMPLED, step=step)
        if self.shape.logit_softcap is not None:
            operations.soft_cap(buffers.logits, cap=self.shape.logit_softcap, rows=Rows.SAMPLED, step=step)


def rotary_tables(
    shape: DecoderShape, weights: DecoderWeights, max_len: int, *, dtype: torch.dtype, device: torch.device
) -> Mapping[RotarySpec, RotaryTable]:
    """Angles of positions 0 … max_len - 1 for every way in which heads turn. Factors of a GGUF file belong to layers
    that see everything.

    Args:
        shape: says which ways there are.
        weights: of that shape.
        max_len: positions.
        dtype: of the tables.
        device: of the tables.
    """
    return {
        spec: rotary_table(
            spec,
            max_len,
            dtype=dtype,
            device=device,
            factors=weights.rotary_factors if spec == shape.rotary else None,
        )
        for spec in shape.rotaries
    }
