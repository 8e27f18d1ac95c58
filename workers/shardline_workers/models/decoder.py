"""The decoder: a Llama-like stack of layers as one sequence of kernel calls, the same for every step.

residual ─▶ norm ─▶ qkv ─▶ rotate, store ─▶ attention ─▶ output ─▶ (+) ─▶ norm ─▶ gate_up ─▶ act ─▶ down ─▶ (+)
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels, KvCache, RotaryTable, Rows
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights, LayerWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """What lies between kernels, at its largest; in the model's dtype, on its device."""

    residual: Tensor  # [max_tokens, hidden]
    normed: Tensor  # [max_tokens, hidden]
    delta: Tensor  # [max_tokens, hidden]: what a half layer adds to the residual
    qkv: Tensor  # [max_tokens, qkv_size]
    attended: Tensor  # [max_tokens, query_size]
    gate_up: Tensor  # [max_tokens, 2 · intermediate]
    activated: Tensor  # [max_tokens, intermediate]
    sampled: Tensor  # [max_seqs, hidden]
    logits: Tensor  # [max_seqs, vocab]

    @classmethod
    def allocate(
        cls, shape: DecoderShape, *, max_tokens: int, max_seqs: int, dtype: torch.dtype, device: torch.device
    ) -> "Activations":
        """Buffers for a step of so many tokens and sampled sequences."""

        def empty(rows: int, columns: int) -> Tensor:
            return torch.empty((rows, columns), dtype=dtype, device=device)

        return cls(
            residual=empty(max_tokens, shape.hidden_size),
            normed=empty(max_tokens, shape.hidden_size),
            delta=empty(max_tokens, shape.hidden_size),
            qkv=empty(max_tokens, shape.attention.qkv_size),
            attended=empty(max_tokens, shape.attention.query_size),
            gate_up=empty(max_tokens, 2 * shape.intermediate_size),
            activated=empty(max_tokens, shape.intermediate_size),
            sampled=empty(max_seqs, shape.hidden_size),
            logits=empty(max_seqs, shape.vocab_size),
        )

    def num_bytes(self) -> int:
        """Memory of all buffers."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))


class Decoder:
    """Weights, kernels and the order of calls. It holds no state of a step but its activations."""

    def __init__(
        self,
        shape: DecoderShape,
        weights: DecoderWeights,
        kernels: Kernels,
        *,
        rotary: RotaryTable,
        activations: Activations,
    ) -> None:
        self.shape = shape
        self.activations = activations
        self._weights = weights
        self._kernels = kernels
        self._rotary = rotary
        self._scale = shape.attention.head_dim**-0.5

    def forward(self, step: StepBuffers, caches: tuple[KvCache, ...]) -> None:
        """Computes the step's tokens: keys and values into the caches, logits of sampled rows into the activations.

        Args:
            step: the batch.
            caches: one for each layer.
        """
        kernels, buffers, weights = self._kernels, self.activations, self._weights
        kernels.embedding(buffers.residual, weights.embedding, step)
        self._norm(weights.layers[0].attention_norm, step)
        next_norms = [*(layer.attention_norm for layer in weights.layers[1:]), weights.final_norm]
        for layer, cache, next_norm in zip(weights.layers, caches, next_norms, strict=True):
            self._attention(layer, cache, step)
            self._add_norm(layer.mlp_norm, step)
            self._mlp(layer, step)
            self._add_norm(next_norm, step)
        kernels.gather_sampled(buffers.sampled, buffers.normed, step=step)
        kernels.linear(buffers.logits, buffers.sampled, weights.lm_head, rows=Rows.SAMPLED, step=step)

    def _attention(self, layer: LayerWeights, cache: KvCache, step: StepBuffers) -> None:
        kernels, buffers, shape = self._kernels, self.activations, self.shape.attention
        kernels.linear(buffers.qkv, buffers.normed, layer.qkv, rows=Rows.TOKENS, step=step)
        kernels.rotate_and_store(buffers.qkv, cache, self._rotary, shape=shape, step=step)
        kernels.attention(buffers.attended, buffers.qkv, cache, shape=shape, scale=self._scale, step=step)
        kernels.linear(buffers.delta, buffers.attended, layer.attention_output, rows=Rows.TOKENS, step=step)

    def _mlp(self, layer: LayerWeights, step: StepBuffers) -> None:
        kernels, buffers = self._kernels, self.activations
        kernels.linear(buffers.gate_up, buffers.normed, layer.gate_up, rows=Rows.TOKENS, step=step)
        kernels.gated_activation(buffers.activated, buffers.gate_up, step=step)
        kernels.linear(buffers.delta, buffers.activated, layer.down, rows=Rows.TOKENS, step=step)

    def _norm(self, weight: Tensor, step: StepBuffers) -> None:
        buffers, epsilon = self.activations, self.shape.norm_epsilon
        self._kernels.rms_norm(buffers.normed, buffers.residual, weight, epsilon=epsilon, step=step)

    def _add_norm(self, weight: Tensor, step: StepBuffers) -> None:
        buffers, epsilon = self.activations, self.shape.norm_epsilon
        self._kernels.add_rms_norm(buffers.normed, buffers.residual, buffers.delta, weight, epsilon=epsilon, step=step)
