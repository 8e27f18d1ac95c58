"""Packing against the reader of the same file types, and tile ranges."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as GgmlType
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.kernels.native_api import Format, Source
from shardline_workers.kernels.native_library import NativeError
from shardline_workers.weights.gguf_types import dequantise
from tests.workers.ggml_blocks import HALVES, any_blocks
from tests.workers.kernels.native.programs import Machine, PackedMatrix, aligned, bf16_bits, rounded_to_bf16

GGML_IDS = {kind.name: number for number, kind in GGML_TYPES.items()}


def file_blocks(name: str, rows: int, inputs: int) -> NDArray[np.uint8]:
    """Random bytes of a file's rows, with scales that are numbers."""
    kind = GgmlType[name]
    num_blocks = rows * inputs // GGML_TYPES[kind].block_weights
    return any_blocks(kind, num_blocks, seed=3).reshape(rows, -1)


def file_weights(name: str, blocks: NDArray[np.uint8], inputs: int) -> NDArray[np.float32]:
    return dequantise(memoryview(blocks.tobytes()), GGML_IDS[name], (len(blocks), inputs))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Q4_0", Format.W4),
        ("Q4_0", Format.W4_MIN),
        ("Q4_1", Format.W4_MIN),
        ("Q5_0", Format.W8),
        ("Q8_0", Format.W8),
    ],
)
@pytest.mark.parametrize("rows", [16, 37])
def test_what_fits_is_taken_over_exactly(machine: Machine, name: str, kind: Format, rows: int) -> None:
    blocks = file_blocks(name, rows, 96)

    unpacked = machine.unpack(machine.pack(kind, blocks, source=Source[name]))

    assert np.array_equal(unpacked, file_weights(name, blocks, 96))


def test_quants_of_q4_k_are_taken_over_and_their_scales_become_float16(machine: Machine) -> None:
    blocks = file_blocks("Q4_K", 37, 512)

    unpacked = machine.unpack(machine.pack(Format.W4_MIN, blocks, source=Source.Q4_K))

    expected = file_weights("Q4_K", blocks, 512)
    groups, found = expected.reshape(-1, 32), unpacked.reshape(-1, 32)
    span = groups.max(axis=1) - groups.min(axis=1)
    # Of scale · q and of the minimum, each by 2^-11 of itself, and both are at most the group's ends together.
    bound = (span + np.abs(groups).max(axis=1)) * 2.0**-11
    assert (np.abs(found - groups).max(axis=1) <= bound * (1 + 1e-3)).all()
    assert np.abs(found - groups).max() > 0


@pytest.mark.parametrize(("name", "quant_bytes"), [("Q6_K", 192), ("Q3_K", 96)])
def test_the_half_of_a_group_with_the_larger_scale_keeps_its_quants(
    machine: Machine, name: str, quant_bytes: int
) -> None:
    blocks = file_blocks(name, 37, 512)
    blocks.reshape(37 * 2, -1)[:, 0:quant_bytes:16] = 0  # every half has its lowest quant

    unpacked = machine.unpack(machine.pack(Format.W8, blocks, source=Source[name]))

    halves = file_weights(name, blocks, 512).reshape(-1, 2, 16)
    errors = np.abs(unpacked.reshape(-1, 2, 16) - halves).max(axis=2)
    largest = np.abs(halves).max(axis=(1, 2))
    exact = errors.min(axis=1) <= largest * 2.0**-11 * (1 + 1e-3)
    assert exact.mean() > 0.95  # all but halves of opposite signs and nearly equal scales
    assert (errors.max(axis=1) <= largest * (0.5 / 127 + 2.0**-11)).all()


@pytest.mark.parametrize("name", ["Q5_1", "Q2_K", "Q5_K"])
def test_what_does_not_fit_moves_by_half_a_step_of_eight_bits(machine: Machine, name: str) -> None:
    blocks = file_blocks(name, 37, 512)

    unpacked = machine.unpack(machine.pack(Format.W8, blocks, source=Source[name]))

    groups = file_weights(name, blocks, 512).reshape(-1, 32)
    errors = np.abs(unpacked.reshape(-1, 32) - groups).max(axis=1)
    largest = np.abs(groups).max(axis=1)
    assert (errors <= largest * (0.5 / 127 + 2.0**-11)).all()
    assert errors.max() > 0


def test_halves_of_opposite_signs_and_equal_scales_are_rounded_and_not_cut(machine: Machine) -> None:
    blocks = file_blocks("Q6_K", 16, 256)
    blocks[:, :192] = 0  # all quants are the lowest: -32
    blocks[:, 192:208] = np.array([100, 156], dtype=np.uint8).repeat(8).reshape(2, 8).T.reshape(-1)  # 100, -100, …

    unpacked = machine.unpack(machine.pack(Format.W8, blocks, source=Source.Q6_K))

    np.testing.assert_allclose(unpacked, file_weights("Q6_K", blocks, 256), rtol=2.0**-8)


def test_a_scale_that_is_no_number_leaves_no_number(machine: Machine) -> None:
    blocks = file_blocks("Q6_K", 16, 256)
    blocks[3, 208:] = 0x7F  # NaN

    unpacked = machine.unpack(machine.pack(Format.W8, blocks, source=Source.Q6_K))

    assert np.isnan(unpacked[3]).all()
    assert np.isfinite(np.delete(unpacked, 3, axis=0)).all()


@pytest.mark.parametrize("name", HALVES)
def test_other_pairs_go_through_floats(machine: Machine, name: str) -> None:
    blocks = file_blocks(name, 16, 512)

    unpacked = machine.unpack(machine.pack(Format.BF16, blocks, source=Source[name]))

    assert np.array_equal(unpacked, rounded_to_bf16(file_weights(name, blocks, 512)))


def test_rows_of_half_a_block_are_refused(machine: Machine) -> None:
    tiles = aligned(machine.library.weight_bytes(Format.W8, 16, 128))

    with pytest.raises(NativeError, match="num_inputs is 128; blocks want a multiple of 256"):
        machine.pack_into(tiles, Format.W8, file_blocks("Q6_K", 16, 256), source=Source.Q6_K, num_inputs=128)


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
