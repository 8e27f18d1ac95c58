"""Linear layers of every format, number of rows, thread count and instruction set."""

import numpy as np
import pytest

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, OpKind
from tests.workers.kernels.native.matrix_instructions import tile_product
from tests.workers.kernels.native.programs import (
    Batch,
    Floats,
    Machine,
    PackedMatrix,
    address,
    families,
    op,
    panel_kind,
    quantised_inputs,
)

SIZES = [(16, 32), (48, 96), (72, 64), (133, 100), (192, 576), (40, 1536)]
UNTOUCHED = np.float32(-77)


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def linear(
    machine: Machine, matrix: PackedMatrix, x: Floats, *, isa: int | None = None, num_threads: int = 1
) -> Floats:
    rows, inputs = x.shape
    panels = machine.panels(panel_kind(matrix.kind), rows, inputs)
    out = np.full((rows, matrix.num_outputs + 3), UNTOUCHED)
    quantise = api.Quantise(address(x), inputs, panels.operand())
    layer = api.Linear(panels.operand(), matrix.operand(), address(out), out.shape[1])
    ops = [op(OpKind.QUANTISE, quantise), op(OpKind.LINEAR, layer)]
    machine.run(ops, Batch(num_tokens=rows), isa=isa, num_threads=num_threads)
    assert (out[:, matrix.num_outputs :] == UNTOUCHED).all()
    return out[:, : matrix.num_outputs]


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize("size", SIZES)
def test_a_linear_layer_is_the_exact_product_of_its_rounded_inputs(
    machine: Machine, kind: Format, size: tuple[int, int]
) -> None:
    outputs, inputs = size
    matrix = machine.pack(kind, random(outputs, inputs))
    x = random(37, inputs, seed=1)

    out = linear(machine, matrix, x, num_threads=2)

    exact = quantised_inputs(kind, x) @ machine.unpack(matrix).astype(np.float64).T
    assert np.abs(out - exact).max() <= 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize("size", [(72, 64), (133, 100), (192, 576), (57, 1100)])
def test_a_row_has_the_same_bits_in_every_batch_on_every_thread_and_instruction_set(
    machine: Machine, kind: Format, size: tuple[int, int]
) -> None:
    outputs, inputs = size
    matrix = machine.pack(kind, random(outputs, inputs))
    x = random(70, inputs, seed=1)
    x[3, :32] = 0  # a group without a scale
    x[5, :32] *= np.float32(1e-37)  # products that are denormals

    for family in families(machine, kind):
        alone = np.concatenate([linear(machine, matrix, row[None], isa=family[0]) for row in x])
        for isa in family:
            for rows in [*range(1, 20), 33, 64, 70] if isa else [1, 7]:
                for num_threads in (1, 2):
                    out = linear(machine, matrix, x[:rows].copy(), isa=isa, num_threads=num_threads)
                    assert out.tobytes() == alone[:rows].tobytes(), (isa, rows, num_threads)


@pytest.mark.parametrize("kind", list(Format))
def test_more_rows_than_are_worked_on_at_once_have_the_bits_of_few(machine: Machine, kind: Format) -> None:
    matrix = machine.pack(kind, random(57, 96))
    x = random(1000, 96, seed=1)

    for isa in machine.library.available_isas().values():
        few = [linear(machine, matrix, x[start : start + 37].copy(), isa=isa) for start in range(0, len(x), 37)]

        assert linear(machine, matrix, x, isa=isa, num_threads=2).tobytes() == np.concatenate(few).tobytes(), isa


@pytest.mark.parametrize("num_rows", [1, 5, 16, 37])
@pytest.mark.parametrize("size", [(16, 32), (72, 64), (133, 100), (48, 1100)])
def test_matrix_instructions_add_bfloat16_products_in_their_own_order(
    machine: Machine, size: tuple[int, int], num_rows: int
) -> None:
    isa = machine.library.available_isas().get("amx")
    if isa is None:
        pytest.skip("this processor has no AMX")
    outputs, inputs = size
    weight, x = random(outputs, inputs), random(num_rows, inputs, seed=1)
    x *= np.float32(2) ** np.random.default_rng(2).integers(-20, 20, x.shape).astype(np.float32)
    x[0, :8] *= np.float32(1e-37)  # products that are denormals
    x[0, 8:16] = np.float32(1e-39)  # inputs that are
    weight[3, :12] = np.float32(1e-39)
    weight[4] *= np.float32(1e-36)  # sums that are, or nearly

    out = linear(machine, machine.pack(Format.BF16, weight), x, isa=isa)

    assert out.tobytes() == tile_product(x, weight).tobytes()


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_input_breaks_its_own_row_visibly_and_no_other(machine: Machine, kind: Format, broken: float) -> None:
    matrix = machine.pack(kind, random(32, 64))
    x = random(19, 64, seed=1)
    spoilt = x.copy()
    spoilt[4, 40] = broken

    for isa in machine.library.available_isas().values():
        whole = linear(machine, matrix, x, isa=isa)
        out = linear(machine, matrix, spoilt, isa=isa)

        assert not np.isfinite(out[4]).any()
        assert np.delete(out, 4, axis=0).tobytes() == np.delete(whole, 4, axis=0).tobytes()
