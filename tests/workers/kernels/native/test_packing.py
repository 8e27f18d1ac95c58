"""Packing against the reader of the same file types, and tile ranges."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.kernels.native_api import Format, Source
from shardline_workers.kernels.native_library import NativeError
from shardline_workers.weights.gguf_types import dequantise
from tests.workers.kernels.native.programs import Machine, PackedMatrix, aligned, bf16_bits, rounded_to_bf16

GGML_IDS = {kind.name: number for number, kind in GGML_TYPES.items()}


def file_blocks(name: str, rows: int, inputs: int) -> NDArray[np.uint8]:
    """Random bytes of a file's rows, with scales that are numbers."""
    generator = np.random.default_rng(3)
    kind = GGML_TYPES[GGML_IDS[name]]
    blocks = generator.integers(0, 256, (rows, inputs // 32, kind.block_bytes), dtype=np.uint8)
    num_halves = 2 if name == "Q4_1" else 1
    halves = generator.standard_normal((rows, inputs // 32, num_halves)).astype(np.float16)
    blocks[:, :, : 2 * num_halves] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Q4_0", Format.W4), ("Q4_0", Format.W4_MIN), ("Q4_1", Format.W4_MIN), ("Q8_0", Format.W8)],
)
@pytest.mark.parametrize("rows", [16, 37])
def test_what_fits_is_taken_over_exactly(machine: Machine, name: str, kind: Format, rows: int) -> None:
    blocks = file_blocks(name, rows, 96)

    unpacked = machine.unpack(machine.pack(kind, blocks, source=Source[name]))

    expected = dequantise(memoryview(blocks.tobytes()), GGML_IDS[name], (rows, 96))
    assert np.array_equal(unpacked, expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0"])
def test_other_pairs_go_through_floats(machine: Machine, name: str) -> None:
    blocks = file_blocks(name, 16, 64)

    unpacked = machine.unpack(machine.pack(Format.BF16, blocks, source=Source[name]))

    expected = dequantise(memoryview(blocks.tobytes()), GGML_IDS[name], (16, 64))
    assert np.array_equal(unpacked, rounded_to_bf16(expected))


def test_floats_become_bfloat16_to_nearest_even(machine: Machine) -> None:
    rows = np.random.default_rng(0).standard_normal((20, 50), dtype=np.float32)
    halves = rows.astype(np.float16)
    upper = bf16_bits(rounded_to_bf16(rows))

    assert np.array_equal(machine.unpack(machine.pack(Format.BF16, rows)), rounded_to_bf16(rows))
    assert np.array_equal(machine.unpack(machine.pack(Format.BF16, halves)), rounded_to_bf16(halves.astype(np.float32)))
    assert np.array_equal(machine.unpack(machine.pack(Format.BF16, upper, source=Source.BF16)), rounded_to_bf16(rows))


@pytest.mark.parametrize(("kind", "name"), [(Format.W4, "Q4_0"), (Format.W4_MIN, "Q4_1"), (Format.W8, "Q8_0")])
def test_floats_are_quantised_as_ggml_does(machine: Machine, kind: Format, name: str) -> None:
    gguf = pytest.importorskip("gguf")
    rows = np.random.default_rng(0).standard_normal((32, 128), dtype=np.float32)
    quantised = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[name])

    ours = machine.unpack(machine.pack(kind, rows))

    assert np.array_equal(ours, dequantise(memoryview(quantised.tobytes()), GGML_IDS[name], (32, 128)))


@pytest.mark.parametrize("kind", list(Format))
def test_tiles_packed_one_by_one_are_the_matrix_packed_at_once(machine: Machine, kind: Format) -> None:
    rows = np.random.default_rng(0).standard_normal((70, 96), dtype=np.float32)
    whole = machine.pack(kind, rows)

    tiles = aligned(whole.tiles.nbytes)
    for tile in (3, 0, 4, 2, 1):
        machine.pack_into(tiles, kind, rows[16 * tile : 16 * tile + 16], num_inputs=96, first_tile=tile)

    assert tiles.tobytes() == whole.tiles.tobytes()


def test_two_matrices_interleave_tile_by_tile(machine: Machine) -> None:
    gate, up = np.random.default_rng(0).standard_normal((2, 40, 64), dtype=np.float32)

    both = machine.pack_gated(Format.BF16, gate, up)

    assert both.num_outputs == 96
    assert np.array_equal(machine.unpack(both, first_tile=0, tile_step=2, num_rows=40), rounded_to_bf16(gate))
    assert np.array_equal(machine.unpack(both, first_tile=1, tile_step=2, num_rows=40), rounded_to_bf16(up))


def test_what_does_not_fill_a_tile_is_zero(machine: Machine) -> None:
    rows = np.ones((17, 40), dtype=np.float32)
    matrix = machine.pack(Format.W8, rows)

    padded = machine.unpack(PackedMatrix(Format.W8, 32, 64, matrix.tiles))

    assert np.allclose(padded[:17, :40], 1, atol=1e-3)
    assert (padded[17:] == 0).all() and (padded[:, 40:] == 0).all()


def test_tiles_beyond_the_end_are_refused(machine: Machine) -> None:
    tiles = aligned(machine.library.weight_bytes(Format.W4, 32, 64))

    with pytest.raises(NativeError, match="3 tiles end beyond packed_bytes, 1152"):
        machine.pack_into(tiles, Format.W4, np.ones((32, 64), dtype=np.float32), num_inputs=64, first_tile=1)
