"""What latent attention is made of: outputs and heads that lie apart, and values that are their keys."""

import pytest
import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.operands import (
    AttentionShape,
    PackedLinear,
    RotaryPairing,
    RotaryTable,
    Rows,
    ScoreRule,
)
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.reference_attention import attend
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from tests.workers.kernels.cases import CPU, MAX_TOKENS, UNTOUCHED, Case, assert_rows, step
from tests.workers.kernels.matrices import FloatMatrix, random

HIDDEN = 32
ROTARY_DIM = 8
HEADS = AttentionShape(num_heads=3, num_kv_heads=1, head_dim=48, shares_values=True)
LARGEST = AttentionShape(num_heads=2, num_kv_heads=1, head_dim=576, shares_values=True)  # DeepSeek-V3's
NUM_TOKENS = 3


def packed_apart(kernels: Kernels, *groups: list[Tensor]) -> PackedLinear:
    return kernels.pack_apart([[FloatMatrix(part) for part in group] for group in groups])


def test_outputs_go_to_one_tensor_after_the_other(case: Case) -> None:
    x = random(MAX_TOKENS, HIDDEN)
    groups = [[random(20, HIDDEN), random(12, HIDDEN)], [random(5, HIDDEN, seed=1)], [random(5, HIDDEN, seed=2)]]
    weight = packed_apart(case.kernels, *groups)
    rows, batch = case.kernels.allocate_linear_input([weight], max_rows=MAX_TOKENS), step(tokens=NUM_TOKENS)
    flat, room, given = case.untouched(MAX_TOKENS, 32), case.untouched(MAX_TOKENS, 2, 9), case.floats(x)

    def calls(operations: Operations) -> None:
        operations.quantise(rows, given, rows=Rows.TOKENS, reader=weight, step=batch)
        operations.linear_apart((flat, room[:, :, 2:7]), rows, weight, step=batch)

    case.run(calls)

    assert_rows(flat, x[:NUM_TOKENS] @ torch.cat(groups[0]).T, case.rounded)
    for head, (matrix,) in enumerate(groups[1:]):
        assert_rows(room[:, head, 2:7], x[:NUM_TOKENS] @ matrix.T, case.rounded)
    assert (room[:, :, :2] == UNTOUCHED).all() and (room[:, :, 7:] == UNTOUCHED).all()


def test_each_head_has_a_matrix_of_its_own(case: Case) -> None:
    matrices = [random(17, 40, seed=seed) for seed in range(3)]
    weight = packed_apart(case.kernels, *([matrix] for matrix in matrices))
    x = random(MAX_TOKENS, 3, 48)
    given, out, batch = case.floats(x), case.untouched(MAX_TOKENS, 3, 20), step(tokens=NUM_TOKENS)
    room = case.kernels.allocate_linear_input([weight], max_rows=MAX_TOKENS)

    case.run(lambda operations: operations.head_linear(out[..., :17], given[..., 8:], weight, room=room, step=batch))

    for head, matrix in enumerate(matrices):
        assert_rows(out[:, head, :17], x[:NUM_TOKENS, head, 8:] @ matrix.T, 2 * case.rounded)
    assert (out[..., 17:] == UNTOUCHED).all()


@pytest.mark.parametrize("shape", [HEADS, LARGEST], ids=["small", "largest"])
def test_values_that_are_their_keys_are_attended_to(kv_case: Case, shape: AttentionShape) -> None:
    batch = step(tokens=NUM_TOKENS)
    rows = random(MAX_TOKENS, shape.qkv_size) / shape.head_dim**0.25
    queries = torch.full((MAX_TOKENS, shape.query_size), UNTOUCHED, dtype=kv_case.kernels.formats.queries)
    cache = kv_case.kernels.allocate_kv_cache(shape, num_blocks=2, block_size=32)
    rotary, given, out = unturned(kv_case), kv_case.floats(rows), kv_case.untouched(MAX_TOKENS, shape.query_size)
    scores = ScoreRule(scale=0.3)

    def calls(operations: Operations) -> None:
        operations.rotate_and_store(queries, given, cache, rotary, shape=shape, step=batch)
        operations.attention(out, queries, cache, shape=shape, scores=scores, reader=None, step=batch)

    kv_case.run(calls)

    heads = rows[:NUM_TOKENS].view(NUM_TOKENS, -1, shape.head_dim)
    keys = heads[:, -1:].transpose(0, 1)
    expected = attend(heads[:, :-1], keys, keys, scores=scores).view(NUM_TOKENS, -1, shape.head_dim)
    attended = out.view(MAX_TOKENS, -1, shape.head_dim)
    assert_rows(attended[..., ROTARY_DIM:], expected[..., ROTARY_DIM:], kv_case.rounded)


@pytest.mark.parametrize(("kv_dtype", "token_bytes"), [(torch.float64, 48 * 8), (torch.int8, 48 + 2 * 2)])
def test_the_reference_stores_values_that_are_their_keys_once(kv_dtype: torch.dtype, token_bytes: int) -> None:
    kernels = ReferenceKernels(dtype=torch.float64, device=CPU, kv_dtype=kv_dtype)

    assert kernels.kv_block_bytes(HEADS, block_size=32) == 32 * token_bytes


def test_a_cache_of_int8_leaves_what_turns_out_of_the_values_scales(native_library: NativeLibrary) -> None:
    """A key's turned part may be large; the latent part of its value is rounded by its own greatest number."""
    rows = torch.zeros(1, HEADS.qkv_size, dtype=torch.float32)
    rows[0, : HEADS.query_size] = 1e-3
    rows[0, -HEADS.head_dim :] = 1.0
    rows[0, -HEADS.head_dim : -HEADS.head_dim + ROTARY_DIM] = 1e4
    batch, out, scores = step(tokens=1), torch.zeros(MAX_TOKENS, HEADS.query_size), ScoreRule(scale=1.0)
    with NativeKernels(native_library, num_threads=1, kv_dtype=torch.int8) as kernels:
        case = Case(kernels, exact=2e-5, rounded=2e-2)
        given, cache = rows.repeat(MAX_TOKENS, 1), kernels.allocate_kv_cache(HEADS, num_blocks=2, block_size=32)
        queries = torch.zeros(MAX_TOKENS, HEADS.query_size, dtype=torch.bfloat16)

        def calls(operations: Operations) -> None:
            operations.rotate_and_store(queries, given, cache, unturned(case), shape=HEADS, step=batch)
            operations.attention(out, queries, cache, shape=HEADS, scores=scores, reader=None, step=batch)

        case.run(calls)

    attended = out[0].view(-1, HEADS.head_dim)[:, ROTARY_DIM:]
    torch.testing.assert_close(attended, torch.ones_like(attended), rtol=1e-2, atol=0)


def unturned(case: Case) -> RotaryTable:
    """Angles of 0."""
    zeros = torch.zeros(8, ROTARY_DIM // 2, dtype=torch.float64)
    return RotaryTable(case.floats(zeros.cos()), case.floats(zeros), RotaryPairing.NEIGHBOURS)
