"""The operations that a decoder is made of.

All write into buffers that they are given and read their sizes from the step's header. So the sequence of calls of a
step is always the same, and is recorded once and replayed: by native code, by a CUDA graph, or, as the reference does,
simply by making the calls.

What a linear layer reads lies in a `LinearInput`, which may be quantised; whoever writes one is told its `reader`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.operands import (
    Activation,
    AttentionShape,
    HeadNorms,
    KvCache,
    LinearInput,
    PackedExpert,
    PackedLinear,
    RotaryTable,
    Routes,
    RoutingRule,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers


class Operations(Protocol):
    """What a step can be made of. Each operation sees all that earlier ones wrote."""

    def embedding(
        self, out: Tensor, table: PackedLinear, *, scale: float = 1.0, first_id: int | None = None, step: StepBuffers
    ) -> None:
        """out[token] = scale · table[token_ids[token]]; out [max_tokens, hidden], table [vocab, hidden].

        With a `first_id` the table is one rank's, has the ids from there on, and others give zeros.
        """
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
        plain: Tensor | None = None,
        step: StepBuffers,
    ) -> None:
        """residual += delta where there is one, then out = residual / rms(residual) · weight; all [rows, hidden].

        With a `delta_weight`, delta / rms(delta) · delta_weight is added in delta's place. What goes to `out` goes to
        `plain` too, where there is one, as numbers.
        With `Rows.SAMPLED`, row r reads residual and delta at sampled_rows[r] and leaves the residual as it was.
        """
        ...

    def add_delta(
        self, residual: Tensor, delta: Tensor, *, delta_weight: Tensor | None, epsilon: float, step: StepBuffers
    ) -> None:
        """residual += delta, as `rms_norm` does it, and nothing else; both [max_tokens, hidden]."""
        ...

    def linear(self, out: Tensor, x: LinearInput, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """out [rows, num_outputs] = x [rows, num_inputs] · weight transposed."""
        ...

    def linear_apart(self, outs: Sequence[Tensor], x: LinearInput, weight: PackedLinear, *, step: StepBuffers) -> None:
        """The outputs of `Kernels.pack_apart`, of all tokens, in their order to one tensor after the other.

        Each is [max_tokens, columns], or [max_tokens, heads, columns] whose heads lie apart; a group of outputs goes
        to one head, or whole groups to one tensor.
        """
        ...

    def head_linear(
        self, out: Tensor, x: Tensor, weight: PackedLinear, *, room: LinearInput, step: StepBuffers
    ) -> None:
        """out[token, head] = x[token, head] · the head's matrix transposed: the groups of `Kernels.pack_apart`.

        out [max_tokens, heads, outputs of one], x [max_tokens, heads, num_inputs]; rows of both may lie apart. `room`
        [max_tokens, num_inputs] holds anything afterwards.
        """
        ...

    def quantise(self, out: LinearInput, x: Tensor, *, rows: Rows, reader: PackedLinear, step: StepBuffers) -> None:
        """out = x [rows, num_inputs], plain numbers, as what reads them wants them."""
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

    def route(
        self,
        routes: Routes,
        x: Tensor,
        router: Tensor,
        *,
        bias: Tensor | None,
        rule: RoutingRule,
        counts: Tensor | None = None,
        step: StepBuffers,
    ) -> None:
        """Chooses experts for the step's tokens; ties, of experts as of groups, go to the lower ids.

        Scores are computed in float32 at least. `num_rows` becomes the number of tokens.

        x [max_tokens, hidden], router [num_experts, hidden], both in the activations' dtype; bias [num_experts]
        float32; counts [num_experts] int64 grow by 1 for each token that takes an expert.
        """
        ...

    def experts(
        self,
        delta: Tensor,
        x: Tensor,
        routes: Routes,
        experts: Sequence[PackedExpert],
        *,
        activation: Activation,
        step: StepBuffers,
    ) -> None:
        """delta[row] = sum of weight · down(activation(gate · x) · (up · x)) over those of `experts` that a row takes.

        It is summed in ascending order of ids, and 0 where none of them is taken. delta and x [max_rows, hidden], of
        which `routes.num_rows` count; `experts` have ascending ids, and routes may name others.
        """
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
        out: LinearInput | Tensor,
        queries: Tensor,
        cache: KvCache,
        *,
        shape: AttentionShape,
        scores: ScoreRule,
        reader: PackedLinear | None,
        step: StepBuffers,
    ) -> None:
        """Causal attention of each token to its sequence's cache, itself included; out [max_tokens, query_size].

        `out` is what `reader` reads; without one it is plain numbers.
        With a window, blocks that none of a sequence's tokens sees any more are not read.
        A ragged batch: one token of a sequence in decode, many of one in prefill.
        """
        ...

    def all_reduce(self, values: Tensor, group: Communicator, *, rows: Rows, step: StepBuffers) -> None:
        """values [rows, width] become their sum over the ranks of the group, in rank order."""
        ...

    def send(self, values: Tensor, group: Communicator, destination: int, *, rows: Rows, step: StepBuffers) -> None:
        """Sends values [rows, width] to a rank of the group, which receives as many rows."""
        ...

    def receive(self, values: Tensor, group: Communicator, source: int, *, rows: Rows, step: StepBuffers) -> None:
        """Overwrites values [rows, width] by what a rank of the group sends next."""
        ...

    def gather_logits(
        self,
        logits: Tensor | None,
        rank_logits: Tensor,
        group: Communicator,
        *,
        rank_sizes: Sequence[int],
        sampling: SamplingBuffers,
        step: StepBuffers,
    ) -> None:
        """Brings together, on rank 0 of the group, what its choices need of logits that are dealt out by vocabulary.

        `rank_logits` [max_sampled, ids of this rank] are the neighbours of those of the rank before; `rank_sizes` are
        the ids of each rank. Row r of `logits` [max_sampled, vocab] gets at least the `num_candidates[r]` greatest of
        each rank, ties to the lower ids, and -inf elsewhere; all of them where that is 0, or where they are fewer bytes
        so. A NaN counts as greatest. Other ranks give None for `logits`.
        """
        ...

    def on_host(self, call: Callable[[], None], *, step: StepBuffers) -> None:
        """Calls what is no operation, between those before and those behind: what ranks exchange by counts of a step.

        It reads and writes their buffers.
        """
        ...

    def soft_cap(self, values: Tensor, *, cap: float, rows: Rows, step: StepBuffers) -> None:
        """values [rows, width] = cap · tanh(values / cap), in place; what is infinite becomes NaN and no number."""
        ...

    def adjust_logits(
        self, sampling: SamplingBuffers, logits: Tensor, *, first_id: int | None = None, step: StepBuffers
    ) -> None:
        """Changes the logits that adjustments name, in this order: bias, repetition, frequency and presence penalty.

        logits [max_sampled, vocab], rows of `adjusted_rows` whose `num_candidates` is 0; a row's adjustments are those
        of its slot. What stood there goes to `raw_logits`.
        With a `first_id`, logits are those of one rank's ids from there on, and rows are the others: those of which
        each rank tells its greatest, and so has to adjust them before.
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
        """Takes `adjust_logits` without a `first_id` back."""
        ...

    def logprobs(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """Writes log-probabilities of `logprob_rows`, from the logits as they are: chosen token and likeliest ones."""
        ...
