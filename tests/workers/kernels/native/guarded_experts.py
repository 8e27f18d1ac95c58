"""Computes experts in buffers that end where memory cannot be touched: to read or write beyond ends the process.

    python -m tests.workers.kernels.native.guarded_experts [stray]

Matrix instructions load from memory where no sanitizer sees it. Prints the number of buffers. With `stray` it reads a
cache line beyond one: the guard must stop it.
"""

import ctypes
import mmap
import os
import sys
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from shardline_workers.kernels.native_api import Format
from shardline_workers.kernels.native_library import load_native_library
from tests.workers.kernels.native.expert_layers import Chosen, make_experts, random, random_choice, run_experts
from tests.workers.kernels.native.programs import Machine

HERE = [1, 2, 5, 6, 10]  # ids of this rank's experts
NUM_IDS = 11
ROW_COUNTS = (1, 5, 7, 16, 17, 33)
_ALIGNMENT = 64  # bytes


class GuardedMemory:
    """Hands out bytes that start on 64, with a page behind them that cannot be touched."""

    def __init__(self) -> None:
        self.mapped: list[mmap.mmap] = []  # as long as the process

    def bytes(self, num_bytes: int) -> NDArray[np.uint8]:
        """Zeroed; less than 64 bytes lie between their end and the page."""
        guard = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.mapped.append(mmap.mmap(-1, guard + mmap.PAGESIZE))
        memory = np.frombuffer(self.mapped[-1], np.uint8)
        address, size = ctypes.c_void_p(memory.ctypes.data + guard), ctypes.c_size_t(mmap.PAGESIZE)
        if ctypes.CDLL(None).mprotect(address, size, 0):
            raise OSError("mprotect failed")
        start = (guard - num_bytes) // _ALIGNMENT * _ALIGNMENT
        return memory[start : start + num_bytes]


def compute(machine: Machine, kind: Format, *, hidden: int, width: int) -> None:
    """Every number of rows, dealt out or all to the last expert, on every instruction set."""
    experts = make_experts(machine, HERE, hidden=hidden, width=width, kind=kind, down_kind=kind)
    for num_rows in ROW_COUNTS:
        x = random(num_rows, hidden)
        to_last = Chosen(np.full((num_rows, 1), HERE[-1], dtype=np.int32), np.ones((num_rows, 1), dtype=np.float32))
        for isa in machine.library.available_isas().values():
            for chosen in (random_choice(num_rows, 3, NUM_IDS), to_last):
                run_experts(machine, x, chosen, experts, isa=isa, spare_rows=0)


def main(*, strays: bool) -> None:
    """Weights and panels are guarded."""
    memory = GuardedMemory()
    if strays:
        buffer = memory.bytes(1000)
        ctypes.string_at(buffer.ctypes.data + buffer.nbytes, _ALIGNMENT)
    with (
        patch("shardline_workers.kernels.native_experts.aligned_bytes", memory.bytes),
        patch("tests.workers.kernels.native.programs.aligned", memory.bytes),
        Machine(load_native_library(os.environ, print), max_threads=1) as machine,
    ):
        for kind in Format:
            compute(machine, kind, hidden=100, width=80)
            compute(machine, kind, hidden=57, width=33)
    print(len(memory.mapped))


if __name__ == "__main__":
    main(strays=sys.argv[1:] == ["stray"])
