"""The operations that a decoder is made of.

All write into buffers that they are given and read their sizes from the step's header. So the sequence of calls of a
step is always the same, and is recorded once and replayed: by native code, by a CUDA graph, or, as the reference does,
simply by making the calls.

What a linear layer reads lies in a `LinearInput`, which may be quantised; whoever writes one is told its `reader`.
"""

from typing import Protocol

from torch import Tensor

from shardline_workers.kernels.operands import (
    Activation,
    AttentionShape,
    HeadNorms,
    KvCache,
    LinearInput,
    PackedLinear,
    RotaryTable,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers


class Operations(Protocol):
    """What a step can be made of. Each operation sees all that earlier ones wrote."""

    def embedding(self, out: Tensor, table: PackedLinear, *, scale: float = 1.0, step: StepBuffers) -> None:
        """out[token] = scale · table[token_ids[token]]; out [max_tokens, hidden], table [vocab, hidden]."""
        ...

    def rms_norm(
        self,
        out: LinearInput,
        residual: Tensor,
        delta: Tensor | None,
        weight: Tensor,
        *,
        delta_weight: Tensor | None = None,
        epsilon: float,
        rows: Rows,
        reader: PackedLinear,
        step: StepBuffers,
    ) -> None:
        """residual += delta where there is one, then out = residual / rms(residual) · weight; all [rows, hidden].

        With a `delta_weight`, delta / rms(delta) · delta_weight is added in delta's place.
        With `Rows.SAMPLED`, row r reads residual and delta at sampled_rows[r] and leaves the residual as it was.
        """
        ...

    def linear(self, out: Tensor, x: LinearInput, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """out [rows, num_outputs] = x [rows, num_inputs] · weight transposed."""
        ...

    def gated_linear(
        self,
        out: LinearInput,
        x: LinearInput,
        weight: PackedLinear,
        *,
        activation: Activation = Activation.SILU,
        reader: PackedLinear,
        step: StepBuffers,
    ) -> None:
        """out [max_tokens, size] = activation(x · gate) · (x · up), for a weight of `Kernels.pack_gated`."""
        ...

    def rotate_and_store(
        self,
        queries: Tensor,
        qkv: Tensor,
        cache: KvCache,
        rotary: RotaryTable,
        *,
        norms: HeadNorms | None = None,
        shape: AttentionShape,
        step: StepBuffers,
    ) -> None:
        """Turns queries and keys of qkv [max_tokens, qkv_size] by the angles of their positions, once they are normed.

        Queries go to `queries` [max_tokens, query_size], keys and values into the cache at `cache_places`.
        """
        ...

    def attention(
        self,
        out: LinearInput,
        queries: Tensor,
        cache: KvCache,
        *,
        shape: AttentionShape,
        scores: ScoreRule,
        reader: PackedLinear,
        step: StepBuffers,
    ) -> None:
        """Causal attention of each token to its sequence's cache, itself included; out [max_tokens, query_size].

        With a window, blocks that none of a sequence's tokens sees any more are not read.
        A ragged batch: one token of a sequence in decode, many of one in prefill.
        """
        ...

    def soft_cap(self, values: Tensor, *, cap: float, rows: Rows, step: StepBuffers) -> None:
        """values [rows, width] = cap · tanh(values / cap), in place; what is infinite becomes NaN and no number."""
        ...

    def adjust_logits(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Changes the logits that adjustments name, in this order: bias, repetition, frequency and presence penalty.

        logits [max_sampled, vocab], rows of `adjusted_rows`; a row's adjustments are those of its slot. What stood
        there goes to `raw_logits`.
        """
        ...

    def choose_greedy(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Writes `chosen_ids`, the likeliest token of each sampled row, ties to the lowest id, and `usable`."""
        ...

    def choose_drawn(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Overwrites `chosen_ids` of `drawn_rows`: temperature, top-k, top-p, min-p in this order, then one draw."""
        ...

    def choose_given(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Overwrites `chosen_ids` of `given_rows` by `given_ids`."""
        ...

    def restore_logits(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Takes `adjust_logits` back."""
        ...

    def logprobs(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Writes log-probabilities of `logprob_rows`, from the logits as they are: chosen token and likeliest ones."""
        ...
