"""Rotation, cache and attention against float64."""

import numpy as np
import pytest

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import KvFormat, OpKind, Pairing, PanelKind
from tests.workers.kernels.native.attention_layers import (
    ALL_AT_ONCE,
    RULES,
    SHAPES,
    Heads,
    Layer,
    Rule,
    blocks_of,
    chunks_batch,
    random_rows,
)
from tests.workers.kernels.native.programs import Machine, address, bf16_bits, op, rounded_to_bf16

# Weights are rounded to bfloat16 (2^-9 each, in both directions) before they meet the values; beside int8 values to 14
# bits, but there a key on the edge between two integers may fall to the other side than numpy's.
TOLERANCES = {KvFormat.BF16: 4e-3, KvFormat.INT8: 6e-3}


@pytest.mark.parametrize("form", KvFormat)
@pytest.mark.parametrize("heads", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 17, 64, 150, 330])
def test_attention_is_the_exact_one_of_rounded_inputs(
    machine: Machine, heads: Heads, tokens: int, form: KvFormat
) -> None:
    layer = Layer(machine, heads, form=form)
    qkv = random_rows(heads, tokens)

    out = layer.run(qkv, chunks_batch(heads, [(0, tokens, blocks_of(heads, tokens))]), num_threads=2)

    assert np.abs(out - layer.exact(qkv)).max() <= TOLERANCES[form]


@pytest.mark.parametrize("form", KvFormat)
@pytest.mark.parametrize("rule", [*RULES, ALL_AT_ONCE])
@pytest.mark.parametrize("heads", [SHAPES[0], SHAPES[3]])
def test_windows_caps_and_sinks_are_those_of_the_formula(
    machine: Machine, heads: Heads, rule: Rule, form: KvFormat
) -> None:
    layer = Layer(machine, heads, form=form, rule=rule)
    qkv = random_rows(heads, 330)

    out = layer.run(qkv, chunks_batch(heads, [(0, 330, blocks_of(heads, 330))]), num_threads=2)

    assert np.abs(out - layer.exact(qkv)).max() <= TOLERANCES[form]


def test_many_small_weights_beside_a_great_one_are_not_lost_in_int8(machine: Machine) -> None:
    """The first token takes 0.9 of the weight, as it does in trained models, and 60 others share the rest."""
    heads = Heads(1, 1, 32, 64, rotary_dim=2)
    rows = np.zeros((61, 3, 32), dtype=np.float32)
    rows[:, 0, 31] = rows[0, 1, 31] = np.sqrt(np.log(9 * 60) * np.sqrt(32))
    rows[0, 2], rows[1:, 2] = 1, -1
    layer = Layer(machine, heads, form=KvFormat.INT8)

    out = layer.run(rows.reshape(61, -1), chunks_batch(heads, [(0, 61, [0])]))

    assert out[60] == pytest.approx(np.full(32, 0.9 - 0.1), abs=2e-3)


@pytest.mark.parametrize("pairing", list(Pairing))
def test_only_the_first_dimensions_of_a_head_turn(machine: Machine, pairing: Pairing) -> None:
    heads = Heads(4, 2, 32, 32, rotary_dim=12)
    layer = Layer(machine, heads, pairing=pairing)
    qkv = random_rows(heads, 40)

    out = layer.run(qkv, chunks_batch(heads, [(0, 40, [1, 0])]))

    assert np.abs(out - layer.exact(qkv)).max() <= 4e-3


@pytest.mark.parametrize("broken_part", [1, 2])
@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_broken_key_or_value_passes_for_no_number_in_int8(machine: Machine, broken_part: int, spoiled: float) -> None:
    heads = Heads(1, 1, 32, 32)
    rows = random_rows(heads, 9).reshape(9, 3, 32)
    rows[4, broken_part, 7] = spoiled

    out = Layer(machine, heads, form=KvFormat.INT8).run(rows.reshape(9, -1), chunks_batch(heads, [(0, 9, [0])]))

    assert np.isfinite(out[:4]).all()
    assert np.isnan(out[4:]).all()


@pytest.mark.parametrize("kind", list(PanelKind))
def test_panels_of_attention_are_the_panels_of_its_rows(machine: Machine, kind: PanelKind) -> None:
    heads, tokens = SHAPES[0], 20
    batch = chunks_batch(heads, [(0, tokens, [0])])
    layer = Layer(machine, heads)
    rows = layer.run(random_rows(heads, tokens), batch)
    queries = bf16_bits(rounded_to_bf16(random_rows(heads, tokens)[:, : 9 * 64]))
    width = rows.shape[1]
    direct, late = (machine.panels(kind, tokens, width) for _ in range(2))
    out = np.zeros_like(rows)

    attention = api.Attention(
        address(queries), layer.cache, address(out), direct.operand(), heads.num_heads, 0.125, 0, 0, None
    )
    quantise = api.Quantise(address(out), width, late.operand())
    machine.run([op(OpKind.ATTENTION, attention), op(OpKind.QUANTISE, quantise)], batch, num_threads=2)

    assert direct.room.tobytes() == late.room.tobytes()
