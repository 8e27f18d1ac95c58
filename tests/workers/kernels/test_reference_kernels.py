"""Every operation against plain arithmetic, and: nothing beyond the header's counts is written."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shardline_workers.kernels.kernels import AttentionShape, KvCache, RotaryPairing, RotaryTable, Rows
from shardline_workers.kernels.reference_attention import attend
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount

MAX_TOKENS = 6
MAX_SEQS = 4
UNTOUCHED = -77.0
SHAPE = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=4)
CPU = torch.device("cpu")


@pytest.fixture
def kernels() -> ReferenceKernels:
    return ReferenceKernels()


def step(*, tokens: int = 3, sampled: int = 2) -> StepBuffers:
    buffers = StepBuffers.allocate(max_tokens=MAX_TOKENS, max_seqs=MAX_SEQS, max_blocks=4, device=CPU)
    buffers.header[StepCount.TOKENS] = tokens
    buffers.header[StepCount.SAMPLED] = sampled
    return buffers


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def untouched(*shape: int) -> Tensor:
    return torch.full(shape, UNTOUCHED, dtype=torch.float64)


def assert_rows(out: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(out[: len(expected)], expected, rtol=0, atol=1e-12)
    assert (out[len(expected) :] == UNTOUCHED).all(), "rows beyond the header's count were written"


def test_embedding_looks_tokens_up(kernels: ReferenceKernels) -> None:
    table, out, batch = random(9, 5), untouched(MAX_TOKENS, 5), step()
    batch.token_ids[:3] = torch.tensor([8, 0, 8])

    kernels.embedding(out, table, batch)

    assert_rows(out, table[[8, 0, 8]])


def test_rms_norm_divides_by_the_root_mean_square(kernels: ReferenceKernels) -> None:
    x, weight, out = random(MAX_TOKENS, 5), random(5), untouched(MAX_TOKENS, 5)

    kernels.rms_norm(out, x, weight, epsilon=0.5, step=step())

    assert_rows(out, x[:3] / (x[:3].square().mean(dim=1, keepdim=True) + 0.5).sqrt() * weight)


def test_add_rms_norm_adds_to_the_residual_first(kernels: ReferenceKernels) -> None:
    residual, delta, weight, out = random(MAX_TOKENS, 5), random(MAX_TOKENS, 5), random(5), untouched(MAX_TOKENS, 5)
    summed, before = residual[:3] + delta[:3], residual.clone()

    kernels.add_rms_norm(out, residual, delta, weight, epsilon=0.5, step=step())

    assert torch.equal(residual[:3], summed)
    assert torch.equal(residual[3:], before[3:])
    assert_rows(out, summed / (summed.square().mean(dim=1, keepdim=True) + 0.5).sqrt() * weight)


@pytest.mark.parametrize(("rows", "count"), [(Rows.TOKENS, 3), (Rows.SAMPLED, 2)])
def test_linear_multiplies_so_many_rows_as_the_header_says(kernels: ReferenceKernels, rows: Rows, count: int) -> None:
    x, weight, out = random(MAX_TOKENS, 5), random(7, 5), untouched(MAX_TOKENS, 7)
    packed = kernels.pack_linear(weight)

    kernels.linear(out, x, packed, rows=rows, step=step())

    assert (packed.num_outputs, packed.num_inputs) == (7, 5)
    assert_rows(out, x[:count] @ weight.T)


def test_gated_activation_is_silu_of_the_gate_times_up(kernels: ReferenceKernels) -> None:
    gate_up, out = random(MAX_TOKENS, 8), untouched(MAX_TOKENS, 4)

    kernels.gated_activation(out, gate_up, step=step())

    assert_rows(out, functional.silu(gate_up[:3, :4]) * gate_up[:3, 4:])


def test_sampled_rows_are_gathered(kernels: ReferenceKernels) -> None:
    x, out, batch = random(MAX_TOKENS, 5), untouched(MAX_SEQS, 5), step()
    batch.sampled_rows[:2] = torch.tensor([2, 0])

    kernels.gather_sampled(out, x, step=batch)

    assert_rows(out, x[[2, 0]])


@pytest.mark.parametrize(
    ("pairing", "partners"),
    [(RotaryPairing.HALVES, [(0, 2), (1, 3)]), (RotaryPairing.NEIGHBOURS, [(0, 1), (2, 3)])],
)
def test_pairs_of_queries_and_keys_turn_by_their_positions_angle(
    kernels: ReferenceKernels, pairing: RotaryPairing, partners: list[tuple[int, int]]
) -> None:
    batch, rotary = step(tokens=1), rotary_table(pairing)
    batch.positions[0] = 5
    qkv = untouched(MAX_TOKENS, SHAPE.qkv_size)
    qkv[0] = random(SHAPE.qkv_size)
    before = qkv[0].clone().view(-1, 4)

    kernels.rotate_and_store(qkv, cache(kernels), rotary, shape=SHAPE, step=batch)

    after = qkv[0].view(-1, 4)
    for number, (one, other) in enumerate(partners):
        turned = torch.polar(torch.ones(6, dtype=torch.float64), torch.full((6,), 5.0 * (number + 1)).double())
        expected = torch.complex(before[:6, one], before[:6, other]) * turned
        torch.testing.assert_close(torch.complex(after[:6, one], after[:6, other]), expected, rtol=0, atol=1e-12)
    assert torch.equal(after[6:], before[6:]), "values do not turn"
    assert (qkv[1:] == UNTOUCHED).all()


def test_dimensions_beyond_the_rotary_ones_stay(kernels: ReferenceKernels) -> None:
    cosines, sines = torch.rand(2, 8, 1, dtype=torch.float64)
    rotary = RotaryTable(cosines, sines, RotaryPairing.HALVES)
    qkv = random(MAX_TOKENS, SHAPE.qkv_size)
    before = qkv.clone().view(MAX_TOKENS, -1, 4)

    kernels.rotate_and_store(qkv, cache(kernels), rotary, shape=SHAPE, step=step())

    assert torch.equal(qkv.view(MAX_TOKENS, -1, 4)[..., 2:], before[..., 2:])
    assert not torch.equal(qkv.view(MAX_TOKENS, -1, 4)[:3, :6, :2], before[:3, :6, :2])


def test_a_ragged_batch_attends_each_sequence_to_its_own_blocks(kernels: ReferenceKernels) -> None:
    """One sequence in decode at position 4, one prefills its first three tokens; blocks of two tokens, scattered."""
    kv_cache, batch = cache(kernels), step(tokens=4)
    batch.header[StepCount.SEQUENCES] = 2
    tables = {1: [3, 0, 4], 2: [1, 2]}
    for slot, blocks in tables.items():
        batch.block_tables[slot, : len(blocks)] = torch.tensor(blocks)
    past = random(5, SHAPE.qkv_size)
    write(kernels, kv_cache, past[:4], places=[6, 7, 0, 1])
    qkv = torch.cat([past[4:], random(3, SHAPE.qkv_size), untouched(2, SHAPE.qkv_size)])
    batch.slots[:2] = torch.tensor([1, 2])
    batch.query_starts[:3] = torch.tensor([0, 1, 4])
    batch.context_lengths[:2] = torch.tensor([5, 3])
    batch.cache_places[:4] = torch.tensor([8, 2, 3, 4])
    out = untouched(MAX_TOKENS, SHAPE.query_size)

    kernels.rotate_and_store(qkv, kv_cache, still_table(), shape=SHAPE, step=batch)
    kernels.attention(out, qkv, kv_cache, shape=SHAPE, scale=0.7, step=batch)

    assert_rows(out, torch.cat([contiguous(past, num_tokens=1), contiguous(qkv[1:4], num_tokens=3)]))


def test_greedy_draws_and_logprobs_touch_their_own_rows_only(kernels: ReferenceKernels) -> None:
    sampling = SamplingBuffers.allocate(max_seqs=MAX_SEQS, max_logprobs=2, device=CPU)
    sampling.chosen_ids[:] = 99
    batch = step(sampled=3)
    batch.header[StepCount.DRAWN] = 1
    batch.header[StepCount.CUT] = 1
    batch.header[StepCount.LOGPROBS] = 1
    sampling.drawn_rows[0] = 1
    sampling.temperatures[1] = 1.0
    sampling.top_ks[1] = 1
    sampling.top_ps[1] = 1.0
    sampling.logprob_rows[0] = 2
    logits = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 2.0, 1.0], [0, 0, 0]])

    kernels.choose_greedy(sampling, logits, step=batch)
    kernels.choose_drawn(sampling, logits, step=batch)
    kernels.logprobs(sampling, logits, step=batch)

    assert sampling.chosen_ids.tolist() == [0, 2, 1, 99]
    assert sampling.usable.tolist() == [True, True, True, False]
    assert sampling.chosen_logprobs[0].item() == pytest.approx(2 - math.log(1 + math.e + math.e**2))
    assert sampling.top_ids[0].tolist() == [1, 2]


def rotary_table(pairing: RotaryPairing) -> RotaryTable:
    """Angles of position and pair number: position · (pair + 1)."""
    angles = torch.arange(8, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0], dtype=torch.float64)
    return RotaryTable(angles.cos(), angles.sin(), pairing)


def still_table() -> RotaryTable:
    shape = (8, 2)
    return RotaryTable(torch.ones(shape).double(), torch.zeros(shape).double(), RotaryPairing.HALVES)


def cache(kernels: ReferenceKernels) -> KvCache:
    return kernels.allocate_kv_cache(SHAPE, num_blocks=5, block_size=2, dtype=torch.float64, device=CPU)


def write(kernels: ReferenceKernels, kv_cache: KvCache, qkv: Tensor, *, places: list[int]) -> None:
    batch = step(tokens=len(places))
    batch.cache_places[: len(places)] = torch.tensor(places)
    kernels.rotate_and_store(qkv.clone(), kv_cache, still_table(), shape=SHAPE, step=batch)


def contiguous(qkv: Tensor, *, num_tokens: int) -> Tensor:
    """Attention of the last tokens of a sequence whose keys and values were never in blocks."""
    heads = qkv.view(len(qkv), -1, SHAPE.head_dim)
    keys, values = heads[:, 4:6].transpose(0, 1), heads[:, 6:].transpose(0, 1)
    return attend(heads[-num_tokens:, :4], keys, values, scale=0.7)
