"""The plain torch implementation: always there, on any device torch knows, and the oracle of every other one.

It makes its calls one by one and reads the header on the host, so it is right before it is fast.
"""

import torch
from torch import Tensor
from torch.nn import functional

from shardline_workers.kernels import reference_attention, reference_sampling
from shardline_workers.kernels.kernels import (
    AttentionShape,
    KvCache,
    PackedLinear,
    RotaryPairing,
    RotaryTable,
    Rows,
)
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount


class ReferenceKernels:
    """Implements `Kernels`. Packed weights are plain matrices."""

    @property
    def name(self) -> str:
        """See `Kernels.name`."""
        return "reference"

    def pack_linear(self, weight: Tensor) -> PackedLinear:
        """See `Kernels.pack_linear`."""
        num_outputs, num_inputs = weight.shape
        return PackedLinear(num_outputs, num_inputs, (weight,))

    def allocate_kv_cache(
        self, shape: AttentionShape, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> KvCache:
        """See `Kernels.allocate_kv_cache`; the layout is that of reference_attention."""
        size = (shape.num_kv_heads, num_blocks, block_size, shape.head_dim)
        # Not zeroed: memory that no token has touched yet costs nothing on the host.
        return KvCache(tuple(torch.empty(size, dtype=dtype, device=device) for _ in ("keys", "values")))

    def embedding(self, out: Tensor, table: Tensor, step: StepBuffers) -> None:
        """See `Kernels.embedding`."""
        num_tokens = _count(step, StepCount.TOKENS)
        torch.index_select(table, 0, step.token_ids[:num_tokens], out=out[:num_tokens])

    def rms_norm(self, out: Tensor, x: Tensor, weight: Tensor, *, epsilon: float, step: StepBuffers) -> None:
        """See `Kernels.rms_norm`."""
        num_tokens = _count(step, StepCount.TOKENS)
        out[:num_tokens] = functional.rms_norm(x[:num_tokens], weight.shape, weight, epsilon)

    def add_rms_norm(
        self, out: Tensor, residual: Tensor, x: Tensor, weight: Tensor, *, epsilon: float, step: StepBuffers
    ) -> None:
        """See `Kernels.add_rms_norm`."""
        num_tokens = _count(step, StepCount.TOKENS)
        residual[:num_tokens] += x[:num_tokens]
        self.rms_norm(out, residual, weight, epsilon=epsilon, step=step)

    def linear(self, out: Tensor, x: Tensor, weight: PackedLinear, *, rows: Rows, step: StepBuffers) -> None:
        """See `Kernels.linear`."""
        num_rows = _count(step, StepCount(rows))
        torch.mm(x[:num_rows], weight.tensors[0].t(), out=out[:num_rows])

    def rotate_and_store(
        self, qkv: Tensor, cache: KvCache, rotary: RotaryTable, *, shape: AttentionShape, step: StepBuffers
    ) -> None:
        """See `Kernels.rotate_and_store`."""
        num_tokens = _count(step, StepCount.TOKENS)
        heads = qkv[:num_tokens].view(num_tokens, -1, shape.head_dim)
        num_rotated = shape.num_heads + shape.num_kv_heads
        _rotate(heads[:, :num_rotated], rotary, step.positions[:num_tokens])
        places = step.cache_places[:num_tokens]
        new_keys, new_values = heads[:, shape.num_heads :].chunk(2, dim=1)
        for stored, new in zip(cache.tensors, (new_keys, new_values), strict=True):
            stored.flatten(1, 2).index_copy_(1, places, new.transpose(0, 1))

    def attention(
        self, out: Tensor, qkv: Tensor, cache: KvCache, *, shape: AttentionShape, scale: float, step: StepBuffers
    ) -> None:
        """See `Kernels.attention`."""
        num_sequences = _count(step, StepCount.SEQUENCES)
        starts = step.query_starts[: num_sequences + 1].tolist()
        contexts = step.context_lengths[:num_sequences].tolist()
        slots = step.slots[:num_sequences].tolist()
        block_size = cache.tensors[0].shape[2]
        for begin, end, context, slot in zip(starts, starts[1:], contexts, slots, strict=False):
            query = qkv[begin:end, : shape.query_size].view(end - begin, shape.num_heads, shape.head_dim)
            block_ids = step.block_tables[slot, : -(-context // block_size)]
            keys, values = (reference_attention.gather(blocks, block_ids, context) for blocks in cache.tensors)
            out[begin:end] = reference_attention.attend(query, keys, values, scale=scale)

    def gated_activation(self, out: Tensor, gate_up: Tensor, *, step: StepBuffers) -> None:
        """See `Kernels.gated_activation`."""
        num_tokens = _count(step, StepCount.TOKENS)
        gate, up = gate_up[:num_tokens].chunk(2, dim=-1)
        torch.mul(functional.silu(gate), up, out=out[:num_tokens])

    def gather_sampled(self, out: Tensor, x: Tensor, *, step: StepBuffers) -> None:
        """See `Kernels.gather_sampled`."""
        num_sampled = _count(step, StepCount.SAMPLED)
        torch.index_select(x, 0, step.sampled_rows[:num_sampled], out=out[:num_sampled])

    def choose_greedy(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Kernels.choose_greedy`."""
        num_sampled = _count(step, StepCount.SAMPLED)
        chosen, usable = reference_sampling.greedy_choice(logits[:num_sampled])
        sampling.chosen_ids[:num_sampled] = chosen
        sampling.usable[:num_sampled] = usable

    def choose_drawn(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Kernels.choose_drawn`."""
        rows = sampling.drawn_rows[: _count(step, StepCount.DRAWN)]
        cut_rows = rows[: _count(step, StepCount.CUT)]
        scaled = reference_sampling.scale(logits[rows], sampling.temperatures[rows])
        scaled[: len(cut_rows)] = reference_sampling.cut_top(
            scaled[: len(cut_rows)], top_ks=sampling.top_ks[cut_rows], top_ps=sampling.top_ps[cut_rows]
        )
        scaled = reference_sampling.cut_min_p(scaled, sampling.min_ps[rows])
        sampling.chosen_ids[rows] = reference_sampling.draw(scaled, sampling.noise_keys[rows])

    def logprobs(self, sampling: SamplingBuffers, logits: Tensor, *, step: StepBuffers) -> None:
        """See `Kernels.logprobs`."""
        count = _count(step, StepCount.LOGPROBS)
        rows = sampling.logprob_rows[:count]
        num_top = sampling.top_ids.shape[1]
        chosen, top_ids, top = reference_sampling.row_logprobs(logits[rows], sampling.chosen_ids[rows], num_top)
        sampling.chosen_logprobs[:count] = chosen
        sampling.top_ids[:count] = top_ids
        sampling.top_logprobs[:count] = top


def _count(step: StepBuffers, count: StepCount) -> int:
    return int(step.header[count])


def _rotate(heads: Tensor, rotary: RotaryTable, positions: Tensor) -> None:
    """Turns [num_tokens, num_heads, head_dim] in place."""
    cosines = rotary.cosines[positions][:, None, :]
    sines = rotary.sines[positions][:, None, :]
    half = cosines.shape[-1]
    if rotary.pairing is RotaryPairing.HALVES:
        first, second = heads[..., :half], heads[..., half : 2 * half]
    else:
        first, second = heads[..., 0 : 2 * half : 2], heads[..., 1 : 2 * half : 2]
    turned_first = first * cosines - second * sines
    turned_second = second * cosines + first * sines
    first.copy_(turned_first)
    second.copy_(turned_second)
