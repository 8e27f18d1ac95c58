"""The decoder: a Llama-like stack of layers as one sequence of kernel calls, the same for every step.

residual ─▶ norm ─▶ qkv ─▶ rotate, store ─▶ attention ─▶ output ─▶ (+) norm ─▶ gate_up, act ─▶ down ─▶ (+)
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import KvCache, LinearInput, PackedLinear, RotaryTable, Rows, ScoreRule
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights, LayerWeights


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


class Decoder:
    """Weights, buffers and the order of calls. It holds no state of a step but its activations."""

    def __init__(
        self, shape: DecoderShape, weights: DecoderWeights, *, rotary: RotaryTable, activations: Activations
    ) -> None:
        self.shape = shape
        self.activations = activations
        self._weights = weights
        self._rotary = rotary
        self._scores = ScoreRule(scale=shape.attention.head_dim**-0.5)

    def forward(self, operations: Operations, step: StepBuffers, caches: tuple[KvCache, ...]) -> None:
        """Computes the step's tokens: keys and values into the caches, logits of sampled rows into the activations.

        Args:
            operations: make the calls, or record them.
            step: the batch.
            caches: one for each layer.
        """
        buffers, weights = self.activations, self._weights
        operations.embedding(buffers.residual, weights.embedding, step=step)
        delta = None  # what the last half layer has left to be added to the residual
        for layer, cache in zip(weights.layers, caches, strict=True):
            self._norm(operations, delta, layer.attention_norm, reader=layer.qkv, step=step)
            self._attention(operations, layer, cache, step)
            delta = buffers.delta
            self._norm(operations, delta, layer.mlp_norm, reader=layer.gate_up, step=step)
            self._mlp(operations, layer, step)
        self._head(operations, delta, step)

    def _attention(self, operations: Operations, layer: LayerWeights, cache: KvCache, step: StepBuffers) -> None:
        buffers, shape, output = self.activations, self.shape.attention, layer.attention_output
        operations.linear(buffers.qkv, buffers.normed, layer.qkv, rows=Rows.TOKENS, step=step)
        operations.rotate_and_store(buffers.queries, buffers.qkv, cache, self._rotary, shape=shape, step=step)
        operations.attention(
            buffers.attended, buffers.queries, cache, shape=shape, scores=self._scores, reader=output, step=step
        )
        operations.linear(buffers.delta, buffers.attended, output, rows=Rows.TOKENS, step=step)

    def _mlp(self, operations: Operations, layer: LayerWeights, step: StepBuffers) -> None:
        buffers = self.activations
        operations.gated_linear(buffers.activated, buffers.normed, layer.gate_up, reader=layer.down, step=step)
        operations.linear(buffers.delta, buffers.activated, layer.down, rows=Rows.TOKENS, step=step)

    def _norm(
        self, operations: Operations, delta: Tensor | None, weight: Tensor, *, reader: PackedLinear, step: StepBuffers
    ) -> None:
        operations.rms_norm(
            self.activations.normed,
            self.activations.residual,
            delta,
            weight,
            epsilon=self.shape.norm_epsilon,
            rows=Rows.TOKENS,
            reader=reader,
            step=step,
        )

    def _head(self, operations: Operations, delta: Tensor | None, step: StepBuffers) -> None:
        buffers, weights = self.activations, self._weights
        operations.rms_norm(
            buffers.sampled,
            buffers.residual,
            delta,
            weights.final_norm,
            epsilon=self.shape.norm_epsilon,
            rows=Rows.SAMPLED,
            reader=weights.lm_head,
            step=step,
        )
        operations.linear(buffers.logits, buffers.sampled, weights.lm_head, rows=Rows.SAMPLED, step=step)
