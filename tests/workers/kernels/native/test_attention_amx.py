"""Attention by matrix instructions adds products up in their order, see matrix_instructions.py."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.workers.kernels.native.attention_layers import Heads, Layer, Rule, blocks_of, chunks_batch, random_rows
from tests.workers.kernels.native.matrix_instructions import tile_product
from tests.workers.kernels.native.programs import Machine, rounded_to_bf16

SINKS = Rule(has_sinks=True)


@pytest.fixture(scope="module")
def amx(machine: Machine) -> int:
    """The number of the instruction set."""
    isa = machine.library.available_isas().get("amx")
    if isa is None:
        pytest.skip("this processor has no AMX")
    return isa


@pytest.mark.parametrize("tokens", [1, 15, 16, 31, 32, 33, 64, 97, 256])
@pytest.mark.parametrize("heads", [Heads(9, 3, 64, 64), Heads(4, 4, 16, 32), Heads(6, 2, 48, 64)])
def test_values_are_added_in_the_order_of_matrix_instructions(
    machine: Machine, amx: int, heads: Heads, tokens: int
) -> None:
    """Queries of zeros give all values a weight of 1, exactly."""
    rows = random_rows(heads, tokens).reshape(tokens, -1, heads.head_dim)
    rows[:, : heads.num_heads] = 0
    rows *= np.float32(2) ** np.random.default_rng(1).integers(-20, 20, rows.shape).astype(np.float32)
    batch = chunks_batch(heads, [(0, tokens, blocks_of(heads, tokens))])

    out = Layer(machine, heads).run(rows.reshape(tokens, -1), batch, isa=amx)

    values = np.repeat(rows[:, -heads.num_kv_heads :], heads.num_heads // heads.num_kv_heads, axis=1)
    seen = np.tri(tokens, dtype=np.float32)
    inverse = np.float32(1) / np.arange(1, tokens + 1, dtype=np.float32)[:, None]
    expected = [tile_product(seen, values[:, head].T.copy()) * inverse for head in range(heads.num_heads)]
    assert out.tobytes() == np.concatenate(expected, axis=1).tobytes()


@pytest.mark.parametrize("head_dim", [16, 48, 64, 128])
def test_scores_are_added_in_the_order_of_matrix_instructions(machine: Machine, amx: int, head_dim: int) -> None:
    """One key beside a sink: its weight tells its score. Great products that cancel make the order count."""
    heads = Heads(32, 32, head_dim, 32)
    rows = random_rows(heads, 1).reshape(3, 32, head_dim)
    rows[0, :, 2:6:2] = np.float32(2.0**14)
    rows[1, :, 2], rows[1, :, 4] = 2.0**13, -(2.0**13)
    rows[2] = 1
    queries, keys, _ = rows

    out = Layer(machine, heads, rule=SINKS).run(rows.reshape(1, -1), chunks_batch(heads, [(0, 1, [0])]), isa=amx)

    in_order = np.array([float(tile_product(q[None], k[None])[0, 0]) for q, k in zip(queries, keys, strict=True)])
    exact = np.einsum("hd,hd->h", *(rounded_to_bf16(x).astype(np.float64) for x in (queries, keys)))
    weights = out.reshape(32, head_dim)
    assert np.abs(weights - weight(in_order, heads)[:, None]).max() <= 1e-5
    assert np.abs(weights - weight(exact, heads)[:, None]).max() >= 0.01


def weight(scores: NDArray[np.float64], heads: Heads) -> NDArray[np.float64]:
    """Of a key beside each head's sink, in float64, [heads]."""
    sinks = SINKS.sinks(heads)
    assert sinks is not None
    weights: NDArray[np.float64] = 1 / (1 + np.exp(sinks.astype(np.float64) - scores * heads.head_dim**-0.5))
    return weights
