"""Runs recorded steps: native code piece by piece, and between the pieces what only the host can do."""

import ctypes
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.native_ranks_api import RanksStatus
from shardline_workers.kernels.native_recording import HostCall, Recording
from shardline_workers.kernels.reference_operations import ReferenceOperations
from shardline_workers.kernels.step_buffers import StepBuffers

_NANO = 1e-9
_RANKS_FAILURES = frozenset(RanksStatus)


class NativePool:
    """The threads of one engine, and what they did. They sleep between steps."""

    def __init__(self, library: NativeLibrary, num_threads: int) -> None:
        self.num_threads = num_threads
        self.handle = library.checked_pointer(library.sl_pool_create(num_threads))
        self._library = library
        self._stats = api.PoolStats()
        self._stats_pointer = ctypes.byref(self._stats)
        self._read_stats = library.sl_pool_read_stats

    def stats(self) -> api.PoolStats:
        """Sums over all runs so far; the next call overwrites them."""
        self._library.checked(self._read_stats(self.handle, self._stats_pointer))
        return self._stats

    def close(self) -> None:
        """Ends the threads."""
        self._library.sl_pool_destroy(self.handle)
        self.handle = 0


class NativeProgram:
    """Implements `StepProgram`."""

    def __init__(self, library: NativeLibrary, pool: NativePool, recording: Recording, *, isa: int) -> None:
        self._library = library
        self._pool = pool
        self.recording = recording  # keeps alive what the program has addresses of
        self._step = _step_of(recording.step)
        self._step_pointer = ctypes.byref(self._step)
        self._run = library.sl_program_run
        self._handles: list[int] = []
        self._wall_ns = 0
        self._parts: list[_NativePart | HostCall] = [
            self._native_part(piece, isa) if isinstance(piece, tuple) else piece for piece in recording.pieces
        ]

    def run(self, num_threads: int, *, operation_ns: NDArray[np.int64] | None = None) -> RunTimes:
        """See `StepProgram.run`.

        Args:
            num_threads: that take part.
            operation_ns: [operations], to each the calling thread's time in it is added; or None.

        Raises:
            NativeError: the step does not fit what it was recorded for.
            CommunicatorError: another rank was lost or is late, or a group was closed.
        """
        for group in self.recording.groups:
            group.native_ranks  # noqa: B018  a closed group's memory is gone: it says so itself
        host_s, first = 0.0, 0
        for part in self._parts:
            if isinstance(part, _NativePart):
                ns = None if operation_ns is None else operation_ns[first : first + part.num_operations]
                self._run_native(part, num_threads, ns)
                first += part.num_operations
            else:
                host_s += _run_on_host(part)
        before_ns, self._wall_ns = self._wall_ns, self._pool.stats().wall_ns
        return RunTimes((self._wall_ns - before_ns) * _NANO + host_s)

    def _run_native(self, part: "_NativePart", num_threads: int, operation_ns: NDArray[np.int64] | None) -> None:
        pointer = None if operation_ns is None else operation_ns.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
        status = self._run(part.handle, self._pool.handle, self._step_pointer, num_threads, pointer)
        if status in _RANKS_FAILURES:
            ranks = self.recording.groups[0].native_ranks
            assert ranks is not None, "a program calls only groups that let it"
            ranks.check(status)
        self._library.checked(status)

    def _native_part(self, piece: tuple[api.Op, ...], isa: int) -> "_NativePart":
        ops = (api.Op * len(piece))(*piece)
        limits = _limits_of(self.recording.step)
        handle = self._library.checked_pointer(
            self._library.sl_program_create(ops, len(ops), ctypes.byref(limits), isa, self._pool.num_threads)
        )
        self._handles.append(handle)
        return _NativePart(handle, len(piece))

    def __del__(self) -> None:
        while getattr(self, "_handles", None):
            self._library.sl_program_destroy(self._handles.pop())


@dataclasses.dataclass(frozen=True, slots=True)
class _NativePart:
    handle: int  # of an sl_program
    num_operations: int


@torch.inference_mode()
def _run_on_host(call: Callable[[ReferenceOperations], None]) -> float:
    """Makes a call; gives the seconds that it took."""
    began_s = time.perf_counter()
    call(ReferenceOperations())
    return time.perf_counter() - began_s


def _step_of(step: StepBuffers) -> api.Step:
    return api.Step(**{field.name: getattr(step, field.name).data_ptr() for field in dataclasses.fields(StepBuffers)})


def _limits_of(step: StepBuffers) -> api.Limits:
    max_seqs, max_blocks = step.block_tables.shape
    return api.Limits(
        max_tokens=step.token_ids.shape[0],
        max_seqs=max_seqs,
        max_blocks=max_blocks,
        max_sampled=step.sampled_rows.shape[0],
    )
