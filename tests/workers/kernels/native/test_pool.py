"""Threads: runs on any number of them, figures for a governor, and no lost wake-up."""

import ctypes

import numpy as np
import pytest

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, OpKind
from shardline_workers.kernels.native_library import NativeError, NativeLibrary
from tests.workers.kernels.native.programs import Batch, Floats, Machine, address, op


def read_stats(machine: Machine) -> api.PoolStats:
    stats = api.PoolStats()
    machine.library.checked(machine.library.sl_pool_read_stats(machine.pool, ctypes.byref(stats)))
    return stats


class Chain:
    """Layers that each read what all threads wrote in the one before; every one doubles x [3, 64]."""

    def __init__(self, machine: Machine, count: int) -> None:
        self._matrix = machine.pack(Format.BF16, 2 * np.eye(64, dtype=np.float32))
        self._panels = machine.panels(api.PanelKind.PAIRS, 3, 64)
        self.x: Floats = np.ones((3, 64), dtype=np.float32)
        panels = self._panels.operand()
        quantise = op(OpKind.QUANTISE, api.Quantise(address(self.x), 64, panels))
        linear = op(OpKind.LINEAR, api.Linear(panels, self._matrix.operand(), address(self.x), 64))
        self.ops = [quantise, linear] * count


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_each_operation_sees_all_that_earlier_ones_wrote(library: NativeLibrary, num_threads: int) -> None:
    with Machine(library, max_threads=8) as machine:
        chain = Chain(machine, 40)
        for run in range(1, 4):
            machine.run(chain.ops, Batch(num_tokens=3), num_threads=num_threads)

            assert (chain.x == 2.0 ** (40 * run)).all()


def test_runs_with_changing_numbers_of_threads_follow_each_other(library: NativeLibrary) -> None:
    with Machine(library, max_threads=4) as machine:
        chain = Chain(machine, 1)
        for number in range(400):
            chain.x[:] = number
            machine.run(chain.ops, Batch(num_tokens=3), num_threads=1 + number % 4)

            assert (chain.x == 2 * np.float32(number)).all() or number > 256  # beyond, bfloat16 rounds


def test_a_pool_counts_its_runs_and_times(library: NativeLibrary) -> None:
    with Machine(library, max_threads=2) as machine:
        chain = Chain(machine, 50)
        machine.run(chain.ops, Batch(num_tokens=3), num_threads=2)
        machine.run(chain.ops, Batch(num_tokens=3), num_threads=1)

        stats = read_stats(machine)

    assert stats.num_runs == 2
    assert 0 < stats.cpu_ns <= 2 * stats.wall_ns + 1_000_000


def test_operations_are_timed_on_request(machine: Machine) -> None:
    chain = Chain(machine, 2)
    times = (ctypes.c_int64 * 4)()
    limits = api.Limits(8, 8, 1, 8)
    array = (api.Op * 4)(*chain.ops)
    program = machine.library.sl_program_create(array, 4, ctypes.byref(limits), machine.library.sl_isa_best(), 2)
    header = Batch(num_tokens=3).header()
    step = api.Step(address(header))

    machine.library.checked(machine.library.sl_program_run(program, machine.pool, ctypes.byref(step), 2, times))

    assert all(time > 0 for time in times)
    machine.library.sl_program_destroy(program)


@pytest.mark.parametrize("num_threads", [0, -1, 3])
def test_more_threads_than_the_pool_has_are_refused(machine: Machine, num_threads: int) -> None:
    chain = Chain(machine, 1)

    with pytest.raises(NativeError, match=rf"num_threads is {num_threads}; it must be 1 … 2"):
        machine.run(chain.ops, Batch(num_tokens=3), num_threads=num_threads)
