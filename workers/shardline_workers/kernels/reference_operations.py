"""Every operation in plain torch, right before it is fast: reads the header on the host, makes its calls at once."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from shardline_workers.kernels import reference_attention, reference_kv_cache, reference_sampling
from shardline_workers.kernels.operands import (
    AttentionShape,
    KvCache,
    LinearInput,
    PackedLinear,
    RotaryPairing,
    RotaryTable,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount


class ReferenceOperations:
    """Implements `Operations`. Packed weights and linear inputs are plain matrices."""

    def embedding(self, out: Tensor, table: PackedLinear, *, step: StepBuffers) -> None:
        """See `Operations.embedding`."""
        num_tokens = _count(step, StepCount.TOKENS)
        torch.index_select(table.tensors[0], 0, step.token_ids[:num_tokens], out=out[:num_tokens])

    def rms_norm(
        self,
        out: LinearInput,
        residual: Tensor,
        delta: Tensor | None,
        weight: Tensor,
        *,
        epsilon: float,
        rows: Rows,
        reader: PackedLinear,
        step: StepBuffers,
    ) -> None:
        """See `Operations.rms_norm`."""
        count = _count(step, StepCount(rows))
        if rows is Rows.SAMPLED:
            sampled = step.sampled_rows[:count]
            summed = residual[sampled] if delta is None else residual[sampled] + delta[sampled]
        else:
            summed = residual[:count]
            if delta is not None:
                summed += delta[:count]
        out.rows[:count] = functional.rms_norm(summed, weight.shape, weight, epsilon)

    def linear(self, out: Tensor, x: LinearInput, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """See `Operations.linear`."""
        num_rows = _count(step, StepCount(rows))
        torch.mm(x.rows[:num_rows], weight.tensors[0].t(), out=out[:num_rows])

    def gated_linear(
        self, out: LinearInput, x: LinearInput, weight: PackedLinear, *, reader: PackedLinear, step: StepBuffers
    ) -> None:
        """See `Operations.gated_linear`."""
        num_tokens = _count(step, StepCount.TOKENS)
        gate, up = torch.mm(x.rows[:num_tokens], weight.tensors[0].t()).chunk(2, dim=-1)
        torch.mul(functional.silu(gate), up, out=out.rows[:num_tokens])

    def rotate_and_store(
        self,
        queries: Tensor,
        qkv: Tensor,
        cache: KvCache,
        rotary: RotaryTable,
        *,
        shape: AttentionShape,
        step: StepBuffers,
    ) -> None:
        """See `Operations.rotate_and_store`."""
        num_tokens = _count(step, StepCount.TOKENS)
        heads = qkv[:num_tokens].view(num_tokens, -1, shape.head_dim)
        num_rotated = shape.num_heads + shape.num_kv_heads
        turned = _rotated(heads[:, :num_rotated], rotary, step.positions[:num_tokens])
        queries[:num_tokens] = turned[:, : shape.num_heads].flatten(1)
        new_keys, new_values = turned[:, shape.num_heads :], heads[:, num_rotated:]
        reference_kv_cache.store(cache, step.cache_places[:num_tokens], new_keys, new_values)

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
        """See `Operations.attention`."""
        num_sequences = _count(step, StepCount.SEQUENCES)
        starts = step.query_starts[: num_sequences + 1].tolist()
        contexts = step.context_lengths[:num_sequences].tolist()
        slots = step.slots[:num_sequences].tolist()
        for begin, end, context, slot in zip(starts, starts[1:], contexts, slots, strict=False):
            query = queries[begin:end].view(end - begin, shape.num_heads, shape.head_dim)
            block_ids = step.block_tables[slot, : -(-context // cache.block_size)]
            keys, values = reference_kv_cache.gather(cache, block_ids, context, dtype=query.dtype)
            out.rows[begin:end] = reference_attention.attend(query, keys, values, scores=scores)

    def adjust_logits(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Operations.adjust_logits`."""
        adjustments = sampling.adjustments
        for row, slot, length in _adjusted(sampling, step):
            ids = adjustments.ids[slot, :length].long()
            raw = logits[row].index_select(0, ids)
            adjustments.raw_logits[slot, :length] = raw
            adjusted = reference_sampling.adjusted(
                raw,
                biases=adjustments.biases[slot, :length],
                occurrences=adjustments.occurrences[slot, :length],
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
        for row, slot, length in _adjusted(sampling, step):
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


def _adjusted(sampling: SamplingBuffers, step: StepBuffers) -> Iterator[tuple[int, int, int]]:
    """Row, slot and number of adjustments of each adjusted row."""
    count = _count(step, StepCount.ADJUSTED)
    if count:
        rows, slots = sampling.adjusted_rows[:count].tolist(), sampling.adjusted_slots[:count].tolist()
        lengths = sampling.adjustments.lengths.tolist()
        yield from ((row, slot, lengths[slot]) for row, slot in zip(rows, slots, strict=True))


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
