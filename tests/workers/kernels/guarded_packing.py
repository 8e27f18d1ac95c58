"""Packs each rank's part of a matrix in memory of which everything else cannot be read: to touch it ends the process.

    python -m tests.workers.kernels.guarded_packing outputs|inputs [whole]

Prints the share of pages that could be read, for each rank. With `whole` a rank packs all: the guard must stop it.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.kernels.native_library import load_native_library
from shardline_workers.kernels.native_weights import WeightPacker
from shardline_workers.parallel.unit_spans import unit_spans
from shardline_workers.weights.stored_numbers import read_numbers

NUM_RANKS = 4
SHAPES = {"outputs": (1024, 1024), "inputs": (4, 1 << 18)}  # long rows: each rank's part of one is many pages
UNITS = {"outputs": 16, "inputs": 32}
_NOTHING, _READ = 0, mmap.PROT_READ


@dataclass(frozen=True)
class Part:
    """Implements `MatrixSource` over a stored part."""

    stored: StoredTensor

    def dequantised(self) -> Tensor:
        return torch.from_numpy(read_numbers(self.stored))


def spans_of(part: StoredTensor, whole: StoredTensor) -> Iterator[range]:
    """Where the rows of a part lie in the whole, in bytes."""
    first = _address(part.data) - _address(whole.data)
    for row in range(part.shape[0]):
        start = first + row * (part.row_stride_bytes or part.row_bytes)
        yield range(start, start + part.row_bytes)


def guard(memory: mmap.mmap, readable: Iterator[range]) -> float:
    """Makes all pages unreadable but those of these bytes; returns the share of pages that can be read."""
    pages = {page for span in readable for page in range(span.start // mmap.PAGESIZE, -(-span.stop // mmap.PAGESIZE))}
    start = _address(memoryview(memory))
    _protect(start, len(memory), _NOTHING)
    for page in pages:
        _protect(start + page * mmap.PAGESIZE, mmap.PAGESIZE, _READ)
    return len(pages) * mmap.PAGESIZE / len(memory)


def _protect(start: int, num_bytes: int, protection: int) -> None:
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(num_bytes), protection):
        raise OSError("mprotect failed")


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def main(axis: str, *, packs_whole: bool) -> None:
    """Packs as each of the ranks in turn."""
    packer = WeightPacker(load_native_library(os.environ, print), None, num_threads=2)
    num_rows, num_columns = SHAPES[axis]
    num_bytes = num_rows * num_columns // 32 * 34
    memory = mmap.mmap(-1, -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
    whole = StoredTensor("Q8_0", (num_rows, num_columns), memoryview(memory)[:num_bytes])
    for rank in range(NUM_RANKS):
        span = unit_spans(num_rows if axis == "outputs" else num_columns, NUM_RANKS, unit=UNITS[axis])[rank]
        part = whole.rows(span) if axis == "outputs" else whole.columns(span)
        print(guard(memory, spans_of(part, whole)), flush=True)
        packer.pack([Part(whole if packs_whole else part)])


if __name__ == "__main__":
    main(sys.argv[1], packs_whole=sys.argv[2:] == ["whole"])
