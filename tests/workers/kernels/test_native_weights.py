"""Packed weights are the file's: unpacked again they are what the reader of the file says, bit by bit."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shardline_workers.kernels.native_api import Format, Packing, PanelKind
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_weights import Segment, WeightPacker, panel_kind, segments
from shardline_workers.kernels.operands import MatrixSource, PackedLinear
from shardline_workers.kernels.packed_store import PackedStore
from tests.workers.kernels.matrices import BlockMatrix, FloatMatrix, random, random_blocks

QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q8_0")


@pytest.fixture
def packer(native_library: NativeLibrary) -> WeightPacker:
    return WeightPacker(native_library, None, num_threads=2)


def unpacked(library: NativeLibrary, segment: Segment, num_inputs: int) -> Tensor:
    rows = np.empty((segment.num_outputs, num_inputs), np.float32)
    packing = Packing(
        format=segment.format,
        num_rows=segment.num_outputs,
        num_inputs=num_inputs,
        tile_step=1,
        packed=segment.tiles.data_ptr(),
        packed_bytes=segment.tiles.numel(),
    )
    library.checked(library.sl_unpack(ctypes.byref(packing), rows.ctypes.data))
    return torch.from_numpy(rows).double()


def whole(library: NativeLibrary, weight: PackedLinear) -> Tensor:
    return torch.cat([unpacked(library, segment, weight.num_inputs) for segment in segments(weight)])


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("num_rows", [16, 40, 1040])
def test_blocks_of_a_file_are_packed_as_they_are(
    native_library: NativeLibrary, packer: WeightPacker, kind: str, num_rows: int
) -> None:
    matrix = random_blocks(kind, num_rows, 96)

    packed = packer.pack([matrix])

    assert (packed.num_outputs, packed.num_inputs) == (num_rows, 96)
    assert panel_kind(packed) is PanelKind.INT8
    torch.testing.assert_close(whole(native_library, packed), matrix.dequantised(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_other_blocks_of_a_file_are_packed_with_less_loss_than_eight_bits(
    native_library: NativeLibrary, packer: WeightPacker, kind: str
) -> None:
    matrix = random_blocks(kind, 40, 512)

    packed = packer.pack([matrix])

    assert [segment.format for segment in segments(packed)] == [Format.W4_MIN if kind == "Q4_K" else Format.W8]
    groups, found = (rows.view(-1, 32) for rows in (matrix.dequantised(), whole(native_library, packed)))
    errors, largest = (found - groups).abs().amax(dim=1), groups.abs().amax(dim=1)
    assert bool((errors <= largest / 175).all())


@pytest.mark.parametrize("num_rows", [8, 48])
def test_floats_become_bfloat16(native_library: NativeLibrary, packer: WeightPacker, num_rows: int) -> None:
    weight = torch.randn(num_rows, 50, generator=torch.Generator().manual_seed(1)).double()

    packed = packer.pack([FloatMatrix(weight)])

    assert panel_kind(packed) is PanelKind.PAIRS
    assert torch.equal(whole(native_library, packed), weight.float().bfloat16().double())


@pytest.mark.parametrize("rows", [(64, 32, 32), (40, 24, 17)])
def test_parts_that_differ_in_format_keep_their_own(
    native_library: NativeLibrary, packer: WeightPacker, rows: tuple[int, int, int]
) -> None:
    parts = [random_blocks(kind, size, 64) for kind, size in zip(("Q4_1", "Q4_1", "Q8_0"), rows, strict=True)]

    packed = packer.pack(parts)

    assert segments(packed)[-1].format is Format.W8
    assert segments(packed)[0].format is Format.W4_MIN
    expected = torch.cat([part.dequantised() for part in parts])
    torch.testing.assert_close(whole(native_library, packed), expected, rtol=1e-6, atol=1e-7)


def test_quantised_parts_beside_floats_become_bfloat16(native_library: NativeLibrary, packer: WeightPacker) -> None:
    parts: list[MatrixSource] = [random_blocks("Q8_0", 32, 64), FloatMatrix(random(32, 64))]

    packed = packer.pack(parts)

    assert {segment.format for segment in segments(packed)} == {Format.BF16}
    expected = torch.cat([part.dequantised() for part in parts]).float().bfloat16().double()
    assert torch.equal(whole(native_library, packed), expected)


@pytest.mark.parametrize("num_rows", [32, 24])
def test_tiles_of_gate_and_up_stand_by_turns(
    native_library: NativeLibrary, packer: WeightPacker, num_rows: int
) -> None:
    gate, up = random_blocks("Q4_0", num_rows, 64), random_blocks("Q4_0", num_rows, 64, seed=1)

    packed = packer.pack_gated(gate, up)

    tiles = whole(native_library, packed).view(-1, 2, 16, 64)
    for number, part in enumerate((gate, up)):
        half = tiles[:, number].flatten(0, 1)[:num_rows]
        torch.testing.assert_close(half, part.dequantised(), rtol=1e-6, atol=1e-7)


def test_a_second_packer_finds_them_on_the_disk_without_reading_the_file(
    native_library: NativeLibrary, tmp_path: Path
) -> None:
    matrix = random_blocks("Q4_1", 48, 64)
    first = WeightPacker(native_library, PackedStore(tmp_path, "key"), num_threads=1)
    packed = first.pack([matrix])
    first.finish()
    other_content = BlockMatrix("Q4_1", matrix.shape, bytes(len(matrix.blocks)))

    found = WeightPacker(native_library, PackedStore(tmp_path, "key"), num_threads=1).pack([other_content])

    assert torch.equal(found.tensors[0], packed.tensors[0])
