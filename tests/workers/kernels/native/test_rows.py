"""Embedding, norms, gated activations and gather: against float64, and panels against the panels of plain rows."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Activation, Format, OpKind, PanelKind
from shardline_workers.kernels.step_buffers import StepCount
from tests.workers.kernels.native.programs import (
    NO_PANELS,
    Batch,
    Floats,
    Machine,
    PanelBuffer,
    address,
    families,
    op,
    panel_kind,
    quantised_inputs,
)

WIDTHS = [32, 100, 576]


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def silu(x: Floats) -> NDArray[np.float64]:
    wide = x.astype(np.float64)
    exact: NDArray[np.float64] = wide / (1 + np.exp(-wide))
    return exact


def gelu_tanh(x: Floats) -> NDArray[np.float64]:
    wide = x.astype(np.float64).clip(-20, None)  # below, it is -0 in float32 as in float64
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    exact: NDArray[np.float64] = wide / (1 + np.exp(-2 * inner))  # 0.5 · x · (1 + tanh(inner)), without cancellation
    return exact


ACTIVATIONS = {Activation.SILU: silu, Activation.GELU_TANH: gelu_tanh}


def normalised(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    wide = x.astype(np.float64)
    rows: NDArray[np.float64] = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-5)
    return rows


def panels_of(machine: Machine, kind: PanelKind, rows: Floats, *, isa: int | None = None) -> PanelBuffer:
    """Panels for this instruction set: each has its own number of rows in a panel."""
    panels = machine.panels(kind, *rows.shape)
    rows = np.ascontiguousarray(rows)
    quantise = api.Quantise(address(rows), rows.shape[1], panels.operand())
    machine.run([op(OpKind.QUANTISE, quantise)], Batch(num_tokens=len(rows)), isa=isa)
    return panels


@pytest.mark.parametrize("scale", [1, 25.25])
@pytest.mark.parametrize("kind", list(Format))
def test_an_embedding_is_a_row_of_the_table_times_the_scale(machine: Machine, kind: Format, scale: float) -> None:
    table = machine.pack(kind, random(50, 100))
    ids = [0, 49, 17, 17, 31]
    expected = machine.unpack(table)[ids] * np.float32(scale)

    for isa in machine.library.available_isas().values():
        out = np.full((6, 101), -77, dtype=np.float32)
        embedding = api.Embedding(table.operand(), address(out), 101, scale)
        machine.run([op(OpKind.EMBEDDING, embedding)], Batch(token_ids=ids), isa=isa, num_threads=2)

        assert np.array_equal(out[:5, :100], expected)
        assert (out[5] == -77).all() and (out[:, 100] == -77).all()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("with_delta", [False, True])
def test_norm_adds_and_normalises(machine: Machine, width: int, with_delta: bool) -> None:
    residual, delta, weight = random(9, width), random(9, width, seed=1), random(width, seed=2)
    bits = set()
    for isa in machine.library.available_isas().values():
        x, out = residual.copy(), np.zeros_like(residual)
        norm = api.Norm(
            address(x),
            address(delta) if with_delta else None,
            address(weight),
            address(out),
            NO_PANELS,
            width,
            1e-5,
            None,
            width,
        )
        machine.run([op(OpKind.NORM, norm)], Batch(num_tokens=8), isa=isa, num_threads=2)
        bits.add((x.tobytes(), out.tobytes()))

    total = residual + delta if with_delta else residual
    assert np.array_equal(x[:8], total[:8]) and np.array_equal(x[8], residual[8])
    wide = total[:8].astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    assert np.abs(out[:8] - exact).max() <= 1e-6 * np.abs(exact).max()
    assert (out[8] == 0).all()
    assert len(bits) == 1


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [StepCount.TOKENS, StepCount.SAMPLED])
def test_a_delta_with_a_weight_is_normalised_before_it_is_added(machine: Machine, width: int, rows: StepCount) -> None:
    residual, delta = random(8, width), random(8, width, seed=1) * np.float32(30)
    weight, delta_weight = random(width, seed=2), random(width, seed=3)
    bits = set()
    for isa in machine.library.available_isas().values():
        x, out = residual.copy(), np.zeros_like(residual)
        norm = api.Norm(
            address(x),
            address(delta),
            address(weight),
            address(out),
            NO_PANELS,
            width,
            1e-5,
            address(delta_weight),
            width,
        )
        batch = Batch(num_tokens=8, sampled_rows=list(range(8)))
        machine.run([op(OpKind.NORM, norm, rows=rows)], batch, isa=isa, num_threads=2)
        bits.add((x.tobytes(), out.tobytes()))

    total = residual + normalised(delta) * delta_weight
    expected_residual = residual if rows is StepCount.SAMPLED else total
    np.testing.assert_allclose(x, expected_residual, rtol=1e-5, atol=2e-6)
    exact = normalised(total) * weight
    assert np.abs(out - exact).max() <= 2e-6 * np.abs(exact).max()
    assert len(bits) == 1


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", list(PanelKind))
def test_norm_of_sampled_rows_goes_to_panels_and_leaves_the_residual(
    machine: Machine, width: int, kind: PanelKind
) -> None:
    residual, delta, weight = random(20, width), random(20, width, seed=1), random(width, seed=2)
    rows = [0, 3, 4, 9, 11, 12, 19]
    x, out = residual.copy(), np.zeros((7, width), dtype=np.float32)
    panels = machine.panels(kind, 7, width)
    norm = api.Norm(address(x), address(delta), address(weight), address(out), panels.operand(), width, 1e-5)
    norm.out_stride = width

    batch = Batch(token_ids=[0] * 20, sampled_rows=rows)
    machine.run([op(OpKind.NORM, norm, rows=StepCount.SAMPLED)], batch, num_threads=2)

    assert np.array_equal(x, residual)
    wide = (residual + delta)[rows].astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    assert np.abs(out - exact).max() <= 1e-6 * np.abs(exact).max()
    assert panels.room.tobytes() == panels_of(machine, kind, out).room.tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("width", [7, 100])
def test_a_soft_cap_bends_rows_in_place(machine: Machine, width: int, num_threads: int) -> None:
    before = random(9, width + 1) * np.float32(50)
    before[0, :5] = [0, 1e-3, -1e9, 1e9, 3]
    bits = set()
    for isa in machine.library.available_isas().values():
        x = before.copy()
        cap = api.SoftCap(address(x), width + 1, width, 30)
        batch = Batch(token_ids=[0] * 9, sampled_rows=list(range(8)))
        machine.run([op(OpKind.SOFT_CAP, cap, rows=StepCount.SAMPLED)], batch, isa=isa, num_threads=num_threads)
        bits.add(x.tobytes())

    exact = 30 * np.tanh(before[:8, :width].astype(np.float64) / 30)
    np.testing.assert_allclose(x[:8, :width], exact, rtol=0, atol=1e-5)
    assert np.array_equal(x[8], before[8]) and np.array_equal(x[:, width], before[:, width])
    assert len(bits) == 1


def test_a_soft_cap_makes_no_numbers_of_what_are_none(machine: Machine) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 4]], dtype=np.float32)

    cap = api.SoftCap(address(x), 4, 4, 30)
    machine.run([op(OpKind.SOFT_CAP, cap)], Batch(num_tokens=1))

    assert np.isnan(x[0, :3]).all() and np.isfinite(x[0, 3])


def test_gathered_rows_are_copies(machine: Machine) -> None:
    x, out = random(9, 50), np.zeros((3, 50), dtype=np.float32)
    gather = api.Gather(address(x), address(out), 50)

    batch = Batch(token_ids=[0] * 9, sampled_rows=[8, 0])
    machine.run([op(OpKind.GATHER_SAMPLED, gather, rows=StepCount.SAMPLED)], batch, num_threads=2)

    assert np.array_equal(out[:2], x[[8, 0]])
    assert (out[2] == 0).all()


@pytest.mark.parametrize("size", [16, 40, 96])
@pytest.mark.parametrize("kind", list(PanelKind))
@pytest.mark.parametrize("by", ACTIVATIONS)
def test_gated_activation_of_plain_rows(machine: Machine, size: int, kind: PanelKind, by: Activation) -> None:
    gate_up = random(11, 2 * size) * np.float32(4)
    gate_up[0, :4] = [0, -200, 200, -88.5]
    bits = set()
    for isa in machine.library.available_isas().values():
        out, panels = np.zeros((11, size), dtype=np.float32), machine.panels(kind, 11, size)
        activation = api.GatedActivation(address(gate_up), address(out), panels.operand(), size, by)
        machine.run([op(OpKind.GATED_ACTIVATION, activation)], Batch(num_tokens=11), isa=isa, num_threads=2)
        bits.add(out.tobytes())
        assert panels.room.tobytes() == panels_of(machine, kind, out, isa=isa).room.tobytes()

    exact = ACTIVATIONS[by](gate_up[:, :size]) * gate_up[:, size:]
    # The exponent of GELU, which is large where the result is next to nothing, has a rounding of its own.
    np.testing.assert_allclose(out, exact, rtol=1e-6 if by is Activation.SILU else 2e-5, atol=1e-30)
    assert len(bits) == 1


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize(("size", "num_rows"), [(16, 19), (40, 19), (96, 530)])
@pytest.mark.parametrize("by", ACTIVATIONS)
def test_a_gated_linear_layer_is_linear_then_activation(
    machine: Machine, kind: Format, size: int, num_rows: int, by: Activation
) -> None:
    gate, up, x = random(size, 64), random(size, 64, seed=1), random(num_rows, 64, seed=2)
    matrix = machine.pack_gated(kind, gate, up)
    identity = machine.pack(kind, np.eye(size, dtype=np.float32))
    bits: dict[int, set[bytes]] = {}
    for number, family in enumerate(families(machine, kind)):
        for isa, num_threads in itertools.product(family, (1, 2)):
            inputs = panels_of(machine, panel_kind(kind), x, isa=isa)
            panels, out = machine.panels(panel_kind(kind), num_rows, size), np.zeros((num_rows, size), dtype=np.float32)
            layer = api.GatedLinear(inputs.operand(), matrix.operand(), panels.operand(), by)
            linear = api.Linear(panels.operand(), identity.operand(), address(out), size)
            ops = [op(OpKind.GATED_LINEAR, layer), op(OpKind.LINEAR, linear)]
            machine.run(ops, Batch(num_tokens=num_rows), isa=isa, num_threads=num_threads)
            bits.setdefault(number, set()).add(out.tobytes())

    gate, up = (machine.unpack(matrix, first_tile=first, tile_step=2, num_rows=size) for first in (0, 1))
    products = [(quantised_inputs(kind, x) @ part.astype(np.float64).T).astype(np.float32) for part in (gate, up)]
    expected = quantised_inputs(kind, (ACTIVATIONS[by](products[0]) * products[1]).astype(np.float32))
    step = np.abs(expected).max() / (
        127 if kind is not Format.BF16 else 256
    )  # a value on the edge may round either way
    assert np.abs(out - expected).max() <= 1.01 * step
    assert np.abs(out - expected).mean() <= 0.02 * step
    assert all(len(found) == 1 for found in bits.values())
