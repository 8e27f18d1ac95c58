"""Every operation of every implementation against plain arithmetic; nothing beyond the header's counts is written."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shardline_workers.kernels.operands import (
    Activation,
    AttentionShape,
    HeadNorms,
    KvCache,
    LinearInput,
    PackedLinear,
    RotaryPairing,
    RotaryTable,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.reference_attention import attend
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from shardline_workers.kernels.sampling_buffers import SamplingBuffers
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from tests.workers.kernels.cases import CPU, MAX_SEQS, MAX_TOKENS, UNTOUCHED, Case, assert_rows, step
from tests.workers.kernels.matrices import FloatMatrix, random

HIDDEN = 32
BLOCK_SIZE = 32
SHAPE = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=16)
RULES = [
    ScoreRule(scale=0.3),
    ScoreRule(scale=0.3, window=2),
    ScoreRule(scale=0.3, window=33),
    ScoreRule(scale=0.3, softcap=0.5),
    ScoreRule(scale=0.3, sinks=torch.tensor([0.0, 1.0, -1.0, 2.0])),
]


def test_an_embedding_may_be_scaled(case: Case) -> None:
    table, out, batch = random(40, HIDDEN), case.untouched(MAX_TOKENS, HIDDEN), step()
    batch.token_ids[:3] = torch.tensor([39, 0, 39])
    packed = case.packed(table)

    case.run(lambda operations: operations.embedding(out, packed, scale=2.5, step=batch))

    assert_rows(out, 2.5 * table[[39, 0, 39]], case.exact)


def test_embedding_looks_tokens_up(case: Case) -> None:
    table, out, batch = random(40, HIDDEN), case.untouched(MAX_TOKENS, HIDDEN), step()
    batch.token_ids[:3] = torch.tensor([39, 0, 39])
    packed = case.packed(table)

    case.run(lambda operations: operations.embedding(out, packed, step=batch))

    assert_rows(out, table[[39, 0, 39]], case.exact)


@pytest.mark.parametrize("with_delta", [False, True])
def test_rms_norm_adds_and_divides_by_the_root_mean_square(case: Case, with_delta: bool) -> None:
    residual, delta, weight = random(MAX_TOKENS, HIDDEN), random(MAX_TOKENS, HIDDEN, seed=1), random(HIDDEN)
    out, x, batch = case.untouched(MAX_TOKENS, HIDDEN), case.floats(residual), step()
    normed, identity = case.linear_input(HIDDEN)

    def calls(operations: Operations) -> None:
        operations.rms_norm(
            normed,
            x,
            given,
            scale,
            epsilon=0.5,
            rows=Rows.TOKENS,
            reader=identity,
            step=batch,
        )
        operations.linear(out, normed, identity, rows=Rows.TOKENS, step=batch)

    given, scale = case.floats(delta) if with_delta else None, case.floats(weight)
    case.run(calls)

    summed = residual[:3] + delta[:3] if with_delta else residual[:3]
    torch.testing.assert_close(x[:3].double(), summed, rtol=0, atol=case.exact)
    assert torch.equal(x[3:], case.floats(residual[3:]))
    assert_rows(out, rms(summed) * weight, case.rounded)


def test_the_norm_of_sampled_rows_gathers_them_and_leaves_the_residual(case: Case) -> None:
    residual, delta, weight = random(MAX_TOKENS, HIDDEN), random(MAX_TOKENS, HIDDEN, seed=1), random(HIDDEN)
    out, x, batch = case.untouched(MAX_SEQS, HIDDEN), case.floats(residual), step()
    batch.sampled_rows[:2] = torch.tensor([2, 0])
    normed, identity = case.linear_input(HIDDEN, rows=MAX_SEQS)
    given, scale = case.floats(delta), case.floats(weight)

    def calls(operations: Operations) -> None:
        operations.rms_norm(normed, x, given, scale, epsilon=0.5, rows=Rows.SAMPLED, reader=identity, step=batch)
        operations.linear(out, normed, identity, rows=Rows.SAMPLED, step=batch)

    case.run(calls)

    assert torch.equal(x, case.floats(residual))
    assert_rows(out, rms((residual + delta)[[2, 0]]) * weight, case.rounded)


@pytest.mark.parametrize("rows", [Rows.TOKENS, Rows.SAMPLED])
def test_a_delta_with_a_weight_is_normed_before_it_is_added(case: Case, rows: Rows) -> None:
    residual, delta = random(MAX_TOKENS, HIDDEN), 9 * random(MAX_TOKENS, HIDDEN, seed=1)
    weight, delta_weight = random(HIDDEN), random(HIDDEN, seed=2)
    x, batch = case.floats(residual), step(tokens=3, sampled=3)
    batch.sampled_rows[:3] = torch.tensor([2, 1, 0])
    normed, identity = case.linear_input(HIDDEN)
    out, given = case.untouched(MAX_TOKENS, HIDDEN), case.floats(delta)
    scale, delta_scale = case.floats(weight), case.floats(delta_weight)

    def calls(operations: Operations) -> None:
        operations.rms_norm(
            normed, x, given, scale, delta_weight=delta_scale, epsilon=0.5, rows=rows, reader=identity, step=batch
        )
        operations.linear(out, normed, identity, rows=rows, step=batch)

    case.run(calls)

    summed = residual[:3] + rms(delta[:3]) * delta_weight
    expected = rms(summed) * weight
    assert_rows(out, expected if rows is Rows.TOKENS else expected.flip(0), case.rounded)
    left = summed if rows is Rows.TOKENS else residual[:3]
    torch.testing.assert_close(x[:3].double(), left, rtol=case.exact, atol=case.exact)
    assert torch.equal(given, case.floats(delta))


def test_linear_multiplies_so_many_rows_as_the_header_says(case: Case) -> None:
    weight, batch = random(40, HIDDEN), step()
    packed, out = case.packed(weight), case.untouched(MAX_TOKENS, 40)
    normed, x = normed_rows(case, packed)

    def calls(operations: Operations) -> None:
        normed(operations, batch)
        operations.linear(out, x, packed, rows=Rows.TOKENS, step=batch)

    case.run(calls)

    assert (packed.num_outputs, packed.num_inputs) == (40, HIDDEN)
    assert_rows(out, rms(ROWS[:3]) @ weight.T, case.rounded)


def test_parts_of_a_matrix_stand_one_after_the_other(case: Case) -> None:
    parts = [random(40, HIDDEN), random(16, HIDDEN), random(24, HIDDEN)]
    packed = case.kernels.pack_linear([FloatMatrix(part) for part in parts])
    out, batch = case.untouched(MAX_TOKENS, 80), step()
    normed, x = normed_rows(case, packed)

    def calls(operations: Operations) -> None:
        normed(operations, batch)
        operations.linear(out, x, packed, rows=Rows.TOKENS, step=batch)

    case.run(calls)

    assert_rows(out, rms(ROWS[:3]) @ torch.cat(parts).T, case.rounded)


@pytest.mark.parametrize("activation", Activation)
def test_gated_linear_is_the_activated_gate_times_up(case: Case, activation: Activation) -> None:
    gate, up, batch = random(24, HIDDEN) / 4, random(24, HIDDEN, seed=1), step()
    packed = case.kernels.pack_gated(FloatMatrix(gate), FloatMatrix(up))
    out, (activated, identity) = case.untouched(MAX_TOKENS, 24), case.linear_input(24)
    normed, x = normed_rows(case, packed)

    def calls(operations: Operations) -> None:
        normed(operations, batch)
        operations.gated_linear(activated, x, packed, activation=activation, reader=identity, step=batch)
        operations.linear(out, activated, identity, rows=Rows.TOKENS, step=batch)

    case.run(calls)

    rows = rms(ROWS[:3])
    turned_gate = {
        Activation.SILU: functional.silu(rows @ gate.T),
        Activation.GELU_TANH: functional.gelu(rows @ gate.T, approximate="tanh"),
    }[activation]
    assert_rows(out, turned_gate * (rows @ up.T), 2 * case.rounded)


@pytest.mark.parametrize("pairing", RotaryPairing)
def test_pairs_of_queries_and_keys_turn_by_their_positions_angle(case: Case, pairing: RotaryPairing) -> None:
    """The queries are told as they are; the keys show in the scores of a query that picks one dimension."""
    batch, rotary = step(tokens=1), rotary_table(case, pairing)
    batch.positions[0] = 5
    batch.context_lengths[0] = 1
    row = random(SHAPE.qkv_size)
    qkv, queries = case.floats(row).repeat(MAX_TOKENS, 1), queries_buffer(case)

    case.run(lambda operations: operations.rotate_and_store(queries, qkv, cache(case), rotary, shape=SHAPE, step=batch))

    expected = turned(row.view(-1, SHAPE.head_dim)[: SHAPE.num_heads], position=5, pairing=pairing)
    torch.testing.assert_close(queries[0].double(), expected.flatten(), rtol=case.rounded, atol=case.rounded)
    assert (queries[1:] == UNTOUCHED).all()


def test_heads_of_queries_and_keys_are_normed_before_they_turn(case: Case) -> None:
    batch, rotary = step(tokens=1), rotary_table(case, RotaryPairing.HALVES)
    batch.positions[0] = 5
    batch.context_lengths[0] = 1
    heads = 7 * random(SHAPE.num_heads + 2 * SHAPE.num_kv_heads, SHAPE.head_dim)
    weights = random(2, SHAPE.head_dim, seed=4)
    norms = HeadNorms(queries=case.floats(weights[0]), keys=case.floats(weights[1]), epsilon=0.5)
    before = heads.clone()
    before[: SHAPE.num_heads] = rms(heads[: SHAPE.num_heads]) * weights[0]
    before[SHAPE.num_heads : -SHAPE.num_kv_heads] = rms(heads[SHAPE.num_heads : -SHAPE.num_kv_heads]) * weights[1]
    stored = []
    for rows, given in ((heads, norms), (before, None)):
        qkv, queries, kv_cache = case.floats(rows.flatten()).repeat(MAX_TOKENS, 1), queries_buffer(case), cache(case)
        for tensor in kv_cache.tensors:
            tensor.zero_()
        store = partial(rotate, queries=queries, qkv=qkv, kv_cache=kv_cache, rotary=rotary, norms=given, batch=batch)
        case.run(store)
        stored.append((queries[0].double(), [tensor.clone() for tensor in kv_cache.tensors]))

    torch.testing.assert_close(stored[0][0], stored[1][0], rtol=case.rounded, atol=case.rounded)
    for normed, expected in zip(stored[0][1], stored[1][1], strict=True):
        if normed.is_floating_point():
            torch.testing.assert_close(normed, expected, rtol=case.rounded, atol=case.rounded)


def rotate(
    operations: Operations,
    *,
    queries: Tensor,
    qkv: Tensor,
    kv_cache: KvCache,
    rotary: RotaryTable,
    norms: HeadNorms | None,
    batch: StepBuffers,
) -> None:
    operations.rotate_and_store(queries, qkv, kv_cache, rotary, norms=norms, shape=SHAPE, step=batch)


def test_dimensions_beyond_the_rotary_ones_stay(case: Case) -> None:
    angles = torch.rand(8, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5
    rotary = RotaryTable(case.floats(angles.cos()), case.floats(angles.sin()), RotaryPairing.HALVES)
    rows = random(MAX_TOKENS, SHAPE.qkv_size)
    qkv, queries, batch = case.floats(rows), queries_buffer(case), step()

    case.run(lambda operations: operations.rotate_and_store(queries, qkv, cache(case), rotary, shape=SHAPE, step=batch))

    before = rows[:3, : SHAPE.query_size].view(3, -1, SHAPE.head_dim)
    after = queries[:3].double().view(3, -1, SHAPE.head_dim)
    assert torch.equal(after[..., 4:], before[..., 4:])
    assert not torch.equal(after[..., :4], before[..., :4])


@pytest.mark.parametrize("rule", RULES)
def test_a_ragged_batch_attends_each_sequence_to_its_own_blocks(kv_case: Case, rule: ScoreRule) -> None:
    """One sequence in decode at position 40, one prefills its first three tokens; blocks lie scattered."""
    case = kv_case
    kv_cache, batch = cache(case), step(tokens=4)
    batch.header[StepCount.SEQUENCES] = 2
    tables = {1: [3, 0], 2: [1, 2]}
    for slot, blocks in tables.items():
        batch.block_tables[slot, : len(blocks)] = torch.tensor(blocks)
    past, new = random(41, SHAPE.qkv_size), random(3, SHAPE.qkv_size, seed=1)
    write(case, kv_cache, past[:32], first_place=3 * BLOCK_SIZE)
    write(case, kv_cache, past[32:40], first_place=0)
    qkv = case.floats(torch.cat([past[40:], new, torch.full((2, SHAPE.qkv_size), UNTOUCHED)]))
    batch.slots[:2] = torch.tensor([1, 2])
    batch.query_starts[:3] = torch.tensor([0, 1, 4])
    batch.context_lengths[:2] = torch.tensor([41, 3])
    batch.positions[:4] = torch.tensor([40, 0, 1, 2])
    batch.cache_places[:4] = torch.tensor([8, BLOCK_SIZE, BLOCK_SIZE + 1, BLOCK_SIZE + 2])
    out, queries = case.untouched(MAX_TOKENS, SHAPE.query_size), queries_buffer(case)
    attended, identity = case.linear_input(SHAPE.query_size)

    def calls(operations: Operations) -> None:
        operations.rotate_and_store(queries, qkv, kv_cache, still_table(case), shape=SHAPE, step=batch)
        operations.attention(attended, queries, kv_cache, shape=SHAPE, scores=rule, reader=identity, step=batch)
        operations.linear(out, attended, identity, rows=Rows.TOKENS, step=batch)

    case.run(calls)

    expected = torch.cat([contiguous(past, num_tokens=1, rule=rule), contiguous(new, num_tokens=3, rule=rule)])
    assert_rows(out, expected, case.rounded)


def test_a_soft_cap_bends_so_many_rows_as_the_header_says(case: Case) -> None:
    values, batch = 50 * random(MAX_SEQS, HIDDEN), step(sampled=2)
    values[0, 0], values[1, 1] = torch.inf, torch.nan
    capped = case.floats(values)

    case.run(lambda operations: operations.soft_cap(capped, cap=30.0, rows=Rows.SAMPLED, step=batch))

    expected = (values[:2] / 30).tanh() * 30
    expected[0, 0] = torch.nan
    torch.testing.assert_close(capped[:2].double(), expected, rtol=case.exact, atol=case.exact, equal_nan=True)
    assert torch.equal(capped[2:], case.floats(values[2:]))


def test_greedy_draws_and_logprobs_touch_their_own_rows_only(case: Case) -> None:
    sampling = SamplingBuffers.allocate(
        max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_logprobs=2, max_adjustments=1, device=CPU
    )
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
    logits = case.floats(torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 2.0, 1.0], [0, 0, 0]]))

    def calls(operations: Operations) -> None:
        operations.choose_greedy(sampling, logits, step=batch)
        operations.choose_drawn(sampling, logits, step=batch)
        operations.logprobs(sampling, logits, step=batch)

    case.run(calls)

    assert sampling.chosen_ids.tolist() == [0, 2, 1, 99]
    assert sampling.usable.tolist() == [True, True, True, False]
    assert sampling.chosen_logprobs[0].item() == pytest.approx(2 - math.log(1 + math.e + math.e**2))
    assert sampling.top_ids[0].tolist() == [1, 2]


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
def test_a_row_with_a_number_that_is_none_is_not_usable(case: Case, spoiled: float) -> None:
    sampling = SamplingBuffers.allocate(
        max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_logprobs=2, max_adjustments=1, device=CPU
    )
    logits = case.floats(torch.zeros(MAX_SEQS, 50))
    logits[1, 33] = spoiled
    batch = step(sampled=3)

    case.run(lambda operations: operations.choose_greedy(sampling, logits, step=batch))

    assert sampling.usable.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [(1.0, 0, 1.0, 0.0), (0.7, 40, 1.0, 0.0), (1.5, 0, 0.9, 0.0), (1.1, 7, 0.5, 0.02), (0.4, 0, 1.0, 0.1)],
)
def test_draws_are_those_of_the_reference(
    case: Case, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    """For the reference itself: that a draw does not depend on the rows beside it."""
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(MAX_SEQS, 500, generator=generator).double()  # no two alike, unlike bfloat16 numbers
    oracle = Case(ReferenceKernels(dtype=torch.float64, device=CPU), exact=0, rounded=0)

    def drawn(chosen_case: Case) -> tuple[list[int], list[float]]:
        sampling = SamplingBuffers.allocate(
            max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_logprobs=5, max_adjustments=1, device=CPU
        )
        sampling.temperatures[:] = temperature
        sampling.top_ks[:] = top_k
        sampling.top_ps[:] = top_p
        sampling.min_ps[:] = min_p
        sampling.noise_keys[:] = torch.arange(MAX_SEQS) * 7919
        sampling.drawn_rows[:] = sampling.logprob_rows[:] = torch.arange(MAX_SEQS)
        batch = step(sampled=MAX_SEQS)
        batch.header[StepCount.DRAWN] = batch.header[StepCount.LOGPROBS] = MAX_SEQS
        batch.header[StepCount.CUT] = MAX_SEQS if top_k or top_p < 1 else 0
        given = chosen_case.floats(logits)

        def calls(operations: Operations) -> None:
            operations.choose_greedy(sampling, given, step=batch)
            operations.choose_drawn(sampling, given, step=batch)
            operations.logprobs(sampling, given, step=batch)

        chosen_case.run(calls)
        told = torch.cat([sampling.chosen_logprobs, sampling.top_logprobs.flatten()])
        return sampling.chosen_ids.tolist() + sampling.top_ids.flatten().tolist(), told.tolist()

    ids, logprobs = drawn(case)
    oracle_ids, oracle_logprobs = drawn(oracle)

    assert ids == oracle_ids
    assert logprobs == pytest.approx(oracle_logprobs, abs=1e-5)


ROWS = random(MAX_TOKENS, HIDDEN, seed=3)


def normed_rows(case: Case, reader: PackedLinear) -> tuple[Callable[[Operations, StepBuffers], None], LinearInput]:
    """A call that puts the norm of ROWS into a linear input, and that input."""
    x = case.kernels.allocate_linear_input([reader], max_rows=MAX_TOKENS)
    residual, weight = case.floats(ROWS), case.floats(torch.ones(HIDDEN))

    def call(operations: Operations, batch: StepBuffers) -> None:
        operations.rms_norm(x, residual, None, weight, epsilon=0.5, rows=Rows.TOKENS, reader=reader, step=batch)

    return call, x


def rms(rows: Tensor) -> Tensor:
    return rows / (rows.square().mean(dim=1, keepdim=True) + 0.5).sqrt()


def angles_of(position: int) -> Tensor:
    """Position · (pair + 1) / 4."""
    return position * (torch.arange(SHAPE.head_dim // 2, dtype=torch.float64) + 1) / 4


def rotary_table(case: Case, pairing: RotaryPairing) -> RotaryTable:
    angles = torch.stack([angles_of(position) for position in range(8)])
    return RotaryTable(case.floats(angles.cos()), case.floats(angles.sin()), pairing)


def turned(heads: Tensor, *, position: int, pairing: RotaryPairing) -> Tensor:
    """Heads as complex numbers, multiplied by those of the angles."""
    half = SHAPE.head_dim // 2
    by_pairs = heads.view(-1, half, 2) if pairing is RotaryPairing.NEIGHBOURS else heads.view(-1, 2, half).mT
    angles = angles_of(position)
    product = torch.view_as_complex(by_pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    pairs = torch.view_as_real(product)
    return (pairs if pairing is RotaryPairing.NEIGHBOURS else pairs.mT).reshape(-1, SHAPE.head_dim)


def still_table(case: Case) -> RotaryTable:
    shape = (64, SHAPE.head_dim // 2)
    return RotaryTable(case.floats(torch.ones(shape)), case.floats(torch.zeros(shape)), RotaryPairing.HALVES)


def queries_buffer(case: Case) -> Tensor:
    return torch.full((MAX_TOKENS, SHAPE.query_size), UNTOUCHED, dtype=case.kernels.formats.queries)


def cache(case: Case) -> KvCache:
    return case.kernels.allocate_kv_cache(SHAPE, num_blocks=5, block_size=BLOCK_SIZE)


def write(case: Case, kv_cache: KvCache, rows: Tensor, *, first_place: int) -> None:
    """Keys and values of so many tokens, to neighbouring places, a few at a time."""
    for start in range(0, len(rows), MAX_TOKENS):
        part = rows[start : start + MAX_TOKENS]
        batch = step(tokens=len(part))
        batch.cache_places[: len(part)] = torch.arange(len(part)) + first_place + start
        qkv = case.floats(torch.zeros(MAX_TOKENS, SHAPE.qkv_size))
        qkv[: len(part)] = case.floats(part)
        case.run(partial(_store, qkv=qkv, kv_cache=kv_cache, case=case, batch=batch))


def _store(operations: Operations, *, qkv: Tensor, kv_cache: KvCache, case: Case, batch: StepBuffers) -> None:
    operations.rotate_and_store(queries_buffer(case), qkv, kv_cache, still_table(case), shape=SHAPE, step=batch)


def contiguous(qkv: Tensor, *, num_tokens: int, rule: ScoreRule) -> Tensor:
    """Attention of the last tokens of a sequence whose keys and values were never in blocks."""
    heads = qkv.view(len(qkv), -1, SHAPE.head_dim)
    keys, values = heads[:, 4:6].transpose(0, 1), heads[:, 6:].transpose(0, 1)
    return attend(heads[-num_tokens:, :4], keys, values, scores=rule)
