"""A rank packs its part of a matrix straight from the file: the very tiles of the whole, and it reads nothing else."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_weights import WeightPacker
from shardline_workers.kernels.operands import PackedLinear
from shardline_workers.parallel.unit_spans import unit_spans
from shardline_workers.weights.stored_numbers import read_numbers
from tests.workers.kernels import guarded_packing
from tests.workers.kernels.guarded_packing import NUM_RANKS, Part
from tests.workers.kernels.matrices import random_blocks

KINDS = ("Q4_0", "Q4_1", "Q8_0", "BF16")


@pytest.fixture
def packer(native_library: NativeLibrary) -> WeightPacker:
    return WeightPacker(native_library, None, num_threads=2)


def stored(kind: str, num_rows: int, num_columns: int) -> StoredTensor:
    if kind != "BF16":
        return random_blocks(kind, num_rows, num_columns).stored
    numbers = torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(1)).bfloat16()
    return StoredTensor("BF16", (num_rows, num_columns), memoryview(numbers.view(torch.uint8).numpy().tobytes()))


def tiles(packed: PackedLinear) -> np.ndarray:
    """[tiles, bytes of a tile]"""
    (segment,) = packed.tensors
    return segment.numpy().reshape(-(-packed.num_outputs // 16), -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", range(3))
def test_a_rank_of_outputs_packs_the_tiles_that_the_whole_matrix_has_there(
    packer: WeightPacker, kind: str, rank: int
) -> None:
    whole = stored(kind, 1040, 96)
    rows = unit_spans(1040, 3, unit=16)[rank]

    packed = packer.pack([Part(whole.rows(rows))])

    expected = tiles(packer.pack([Part(whole)]))[rows.start // 16 : rows.stop // 16]
    assert np.array_equal(tiles(packed), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_of_inputs_packs_what_a_matrix_of_its_columns_alone_would(packer: WeightPacker, kind: str) -> None:
    whole = stored(kind, 48, 160)
    part = whole.columns(unit_spans(160, 2, unit=32)[1])
    rows = np.stack([np.frombuffer(part.rows(range(row, row + 1)).data, np.uint8) for row in range(48)])
    alone = StoredTensor(kind, part.shape, memoryview(rows.tobytes()))

    packed = packer.pack([Part(part)])

    assert (packed.num_outputs, packed.num_inputs) == (48, 64)
    assert np.array_equal(tiles(packed), tiles(packer.pack([Part(alone)])))


def test_gate_and_up_of_a_rank_are_the_pairs_of_tiles_of_the_whole(packer: WeightPacker) -> None:
    gate, up = (random_blocks("Q4_1", 128, 64, seed=seed).stored for seed in (1, 2))
    rows = unit_spans(128, 2, unit=32)[1]

    packed = packer.pack_gated(Part(gate.rows(rows)), Part(up.rows(rows)))

    assert np.array_equal(tiles(packed), tiles(packer.pack_gated(Part(gate), Part(up)))[8:])


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_a_part_are_those_of_the_whole_there(kind: str) -> None:
    whole = stored(kind, 40, 96)

    part = whole.rows(range(8, 24)).columns(range(32, 96))

    assert np.array_equal(read_numbers(part), read_numbers(whole)[8:24, 32:96])


def packed_under_guard(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", guarded_packing.__name__, *arguments]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.process
@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("axis", ["outputs", "inputs"])
def test_a_rank_reads_its_own_bytes_and_no_others(axis: str) -> None:
    done = packed_under_guard(axis)

    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == pytest.approx([1 / NUM_RANKS] * NUM_RANKS, abs=0.01)


@pytest.mark.process
@pytest.mark.usefixtures("native_library")
def test_whoever_read_more_than_the_own_part_would_be_seen() -> None:
    done = packed_under_guard("outputs", "whole")

    assert done.returncode == -signal.SIGSEGV
