"""Every operation in plain torch, right before it is fast: reads the header on the host, makes its calls at once."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from shardline_workers.communicator import Communicator
from shardline_workers.kernels import (
    reference_attention,
    reference_experts,
    reference_gathering,
    reference_kv_cache,
    reference_sampling,
)
from shardline_workers.kernels.operands import (
    Activation,
    AttentionShape,
    HeadNorms,
    KvCache,
    LinearInput,
    PackedExpert,
    PackedLinear,
    RotaryPairing,
    RotaryTable,
    Routes,
    RoutingRule,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount


class ReferenceOperations:
    """Implements `Operations`. Packed weights and linear inputs are plain matrices."""

    def embedding(
        self, out: Tensor, table: PackedLinear, *, scale: float = 1.0, first_id: int | None = None, step: StepBuffers
    ) -> None:
        """See `Operations.embedding`."""
        num_tokens = _count(step, StepCount.TOKENS)
        rows = step.token_ids[:num_tokens] - (first_id or 0)
        is_here = (rows >= 0) & (rows < table.num_outputs)
        torch.index_select(table.tensors[0], 0, rows.where(is_here, 0), out=out[:num_tokens])
        out[:num_tokens] *= is_here[:, None] * scale

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
        """See `Operations.rms_norm`."""
        count = _count(step, StepCount(rows))
        chosen = step.sampled_rows[:count] if rows is Rows.SAMPLED else slice(count)
        summed = residual[chosen]  # a view of all tokens, a copy of sampled ones
        if delta is not None:
            added = delta[chosen]
            summed += added if delta_weight is None else _rms_norm(added, delta_weight, epsilon)
        out.rows[:count] = _rms_norm(summed, weight, epsilon)
        if plain is not None:
            plain[:count] = out.rows[:count]

    def add_delta(
        self, residual: Tensor, delta: Tensor, *, delta_weight: Tensor | None, epsilon: float, step: StepBuffers
    ) -> None:
        """See `Operations.add_delta`."""
        count = _count(step, StepCount.TOKENS)
        added = delta[:count]
        residual[:count] += added if delta_weight is None else _rms_norm(added, delta_weight, epsilon)

    def linear(self, out: Tensor, x: LinearInput, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.linear`."""
        num_rows = _count(step, StepCount(rows))
        torch.mm(x.rows[:num_rows], weight.tensors[0].t(), out=out[:num_rows])

    def linear_apart(self, outs: Sequence[Tensor], x: LinearInput, weight: PackedLinear, *, step: StepBuffers) -> None:
        """See `Operations.linear_apart`."""
        num_tokens = _count(step, StepCount.TOKENS)
        product = torch.mm(x.rows[:num_tokens], weight.tensors[0].t())
        parts = torch.split(product, [out[0].numel() for out in outs], dim=-1)
        for out, part in zip(outs, parts, strict=True):
            out[:num_tokens] = part.view(num_tokens, *out.shape[1:])

    def head_linear(
        self, out: Tensor, x: Tensor, weight: PackedLinear, *, room: LinearInput, step: StepBuffers
    ) -> None:
        """See `Operations.head_linear`."""
        num_tokens = _count(step, StepCount.TOKENS)
        matrices = weight.tensors[0].view(x.shape[1], -1, weight.num_inputs)
        out[:num_tokens] = torch.bmm(x[:num_tokens].transpose(0, 1), matrices.transpose(1, 2)).transpose(0, 1)

    def quantise(self, out: LinearInput, x: Tensor, *, rows: Rows, reader: PackedLinear, step: StepBuffers) -> None:
        """See `Operations.quantise`: the rows as they are."""
        num_rows = _count(step, StepCount(rows))
        out.rows[:num_rows] = x[:num_rows]

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
        """See `Operations.gated_linear`."""
        num_tokens = _count(step, StepCount.TOKENS)
        gate, up = torch.mm(x.rows[:num_tokens], weight.tensors[0].t()).chunk(2, dim=-1)
        torch.mul(_activated(gate, activation), up, out=out.rows[:num_tokens])

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
        """See `Operations.route`."""
        num_tokens = _count(step, StepCount.TOKENS)
        expert_ids, weights = reference_experts.choose(x[:num_tokens], router, bias=bias, rule=rule)
        routes.expert_ids[:num_tokens] = expert_ids
        routes.weights[:num_tokens] = weights
        routes.num_rows.fill_(num_tokens)
        if counts is not None:
            counts += torch.bincount(expert_ids.flatten(), minlength=len(counts))

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
        """See `Operations.experts`."""
        num_rows = int(routes.num_rows)
        expert_ids, weights = routes.expert_ids[:num_rows], routes.weights[:num_rows]
        delta[:num_rows] = 0
        for expert in experts:
            rows, places = (expert_ids == expert.expert_id).nonzero(as_tuple=True)
            gate, up = torch.mm(x[rows], expert.gate_up.tensors[0].t()).chunk(2, dim=-1)
            outputs = torch.mm(_activated(gate, activation) * up, expert.down.tensors[0].t())
            delta.index_add_(0, rows, outputs * weights[rows, places, None])

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
        """See `Operations.rotate_and_store`."""
        num_tokens = _count(step, StepCount.TOKENS)
        heads = qkv[:num_tokens].view(num_tokens, -1, shape.head_dim)
        new_queries, new_keys, new_values = heads.tensor_split(
            [shape.num_heads, shape.num_heads + shape.num_kv_heads], dim=1
        )
        if norms is not None:
            new_queries = _rms_norm(new_queries, norms.queries, norms.epsilon)
            new_keys = _rms_norm(new_keys, norms.keys, norms.epsilon)
        positions = step.positions[:num_tokens]
        queries[:num_tokens] = _rotated(new_queries, rotary, positions).flatten(1)
        new_keys = _rotated(new_keys, rotary, positions)
        reference_kv_cache.store(cache, step.cache_places[:num_tokens], new_keys, new_values)

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
        """See `Operations.attention`."""
        num_sequences = _count(step, StepCount.SEQUENCES)
        attended = out.rows if isinstance(out, LinearInput) else out
        starts = step.query_starts[: num_sequences + 1].tolist()
        contexts = step.context_lengths[:num_sequences].tolist()
        slots = step.slots[:num_sequences].tolist()
        for begin, end, context, slot in zip(starts, starts[1:], contexts, slots, strict=False):
            query = queries[begin:end].view(end - begin, shape.num_heads, shape.head_dim)
            block_ids = step.block_tables[slot, : -(-context // cache.block_size)]
            keys, values = reference_kv_cache.gather(cache, block_ids, context, dtype=query.dtype)
            attended[begin:end] = reference_attention.attend(query, keys, values, scores=scores)

    def all_reduce(self, values: Tensor, group: Communicator, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.all_reduce`."""
        if group.place.num_ranks > 1:
            group.all_reduce_sum(values[: _count(step, StepCount(rows))])

    def send(self, values: Tensor, group: Communicator, destination: int, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.send`."""
        group.send(values[: _count(step, StepCount(rows))], destination)

    def receive(self, values: Tensor, group: Communicator, source: int, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.receive`."""
        group.recv(values[: _count(step, StepCount(rows))], source)

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
        """See `Operations.gather_logits`."""
        if group.place.num_ranks > 1:
            num_candidates = sampling.num_candidates[: _count(step, StepCount.SAMPLED)].tolist()
            reference_gathering.gather(logits, rank_logits, group, rank_sizes=rank_sizes, num_candidates=num_candidates)

    def on_host(self, call: Callable[[], None], *, step: StepBuffers) -> None:
        """See `Operations.on_host`."""
        call()

    def soft_cap(self, values: Tensor, *, cap: float, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.soft_cap`."""
        chosen = values[: _count(step, StepCount(rows))]
        chosen.copy_(torch.where(chosen.isfinite(), (chosen / cap).tanh() * cap, torch.nan))

    def adjust_logits(
        self, sampling: SamplingBuffers, logits: Tensor, *, first_id: int | None = None, step: StepBuffers
    ) -> None:
        """See `Operations.adjust_logits`."""
        adjustments = sampling.adjustments
        for row, slot, length in _adjusted(sampling, step, by_ranks=first_id is not None):
            ids = adjustments.ids[slot, :length].long() - (first_id or 0)
            entries = ((ids >= 0) & (ids < logits.shape[1])).nonzero()[:, 0]
            ids = ids[entries]
            raw = logits[row].index_select(0, ids)
            adjustments.raw_logits[slot, entries] = raw.double()
            adjusted = reference_sampling.adjusted(
                raw,
                biases=adjustments.biases[slot, entries],
                occurrences=adjustments.occurrences[slot, entries],
                penalties=reference_sampling.Penalties(
                    repetition=sampling.repetition_penalties[row],
                    frequency=sampling.frequency_penalties[row],
                    presence=sampling.presence_penalties[row],
                ),
            )
            logits[row].index_copy_(0, ids, adjusted.to(logits.dtype))

    def choose_given(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.choose_given`."""
        count = _count(step, StepCount.GIVEN)
        sampling.chosen_ids[sampling.given_rows[:count]] = sampling.given_ids[:count]

    def restore_logits(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.restore_logits`."""
        adjustments = sampling.adjustments
        for row, slot, length in _adjusted(sampling, step, by_ranks=False):
            ids = adjustments.ids[slot, :length].long()
            logits[row].index_copy_(0, ids, adjustments.raw_logits[slot, :length].to(logits.dtype))

    def choose_greedy(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.choose_greedy`."""
        num_sampled = _count(step, StepCount.SAMPLED)
        chosen, usable = reference_sampling.greedy_choice(logits[:num_sampled])
        sampling.chosen_ids[:num_sampled] = chosen
        sampling.usable[:num_sampled] = usable

    def choose_drawn(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.choose_drawn`."""
        num_drawn = _count(step, StepCount.DRAWN)
        if num_drawn == 0:
            return
        rows = sampling.drawn_rows[:num_drawn]
        cut_rows = rows[: _count(step, StepCount.CUT)]
        scaled = reference_sampling.scale(logits[rows], sampling.temperatures[rows])
        scaled[: len(cut_rows)] = reference_sampling.cut_top(
            scaled[: len(cut_rows)], top_ks=sampling.top_ks[cut_rows], top_ps=sampling.top_ps[cut_rows]
        )
        scaled = reference_sampling.cut_min_p(scaled, sampling.min_ps[rows])
        sampling.chosen_ids[rows] = reference_sampling.draw(scaled, sampling.noise_keys[rows])

    def logprobs(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.logprobs`."""
        count = _count(step, StepCount.LOGPROBS)
        if count == 0:
            return
        rows = sampling.logprob_rows[:count]
        num_top = sampling.top_ids.shape[1]
        chosen, top_ids, top = reference_sampling.row_logprobs(logits[rows], sampling.chosen_ids[rows], num_top)
        sampling.chosen_logprobs[:count] = chosen
        sampling.top_ids[:count] = top_ids
        sampling.top_logprobs[:count] = top


def _count(step: StepBuffers, count: StepCount) -> int:
    return int(step.header[count])


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return functional.rms_norm(x, weight.shape, weight, epsilon)


def _activated(gate: Tensor, activation: Activation) -> Tensor:
    if activation is Activation.GELU_TANH:
        return functional.gelu(gate, approximate="tanh")
    return functional.silu(gate)


def _adjusted(sampling: SamplingBuffers, step: StepBuffers, *, by_ranks: bool) -> Iterator[tuple[int, int, int]]:
    """Row, slot and number of adjustments of each row that ranks adjust themselves, or of each that they do not."""
    count = _count(step, StepCount.ADJUSTED)
    if count:
        rows, slots = sampling.adjusted_rows[:count].tolist(), sampling.adjusted_slots[:count].tolist()
        lengths, num_candidates = sampling.adjustments.lengths.tolist(), sampling.num_candidates.tolist()
        for row, slot in zip(rows, slots, strict=True):
            if (num_candidates[row] > 0) is by_ranks:
                yield row, slot, lengths[slot]


def _rotated(heads: Tensor, rotary: RotaryTable, positions: Tensor) -> Tensor:
    """[num_tokens, num_heads, head_dim] turned by the angles of [num_tokens] positions."""
    cosines = rotary.cosines[positions][:, None, :]
    sines = rotary.sines[positions][:, None, :]
    half = cosines.shape[-1]
    turned = heads.clone()
    if rotary.pairing is RotaryPairing.HALVES:
        first, second = turned[..., :half], turned[..., half : 2 * half]
    else:
        first, second = turned[..., 0 : 2 * half : 2], turned[..., 1 : 2 * half : 2]
    turned_first = first * cosines - second * sines
    turned_second = second * cosines + first * sines
    first.copy_(turned_first)
    second.copy_(turned_second)
    return turned
