"""How near the native CPU kernels come to what the processor can do: products by format and number of rows.

    python -m benchmarks.native_kernels [--out FILE] [--rounds N]

Prints JSON. All times are CPU time of one thread, so other processes disturb only by caches and memory; peaks are
measured in the same run, before and after each round, since a shared machine's speed changes by the minute. Weights are
spread over more memory than caches hold, as a model's are.
"""

import argparse
import ctypes
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.surroundings import load_average, surroundings
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, OpKind, PanelKind, Source
from shardline_workers.kernels.native_compiler import build, find_compiler
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from shardline_workers.kernels.step_buffers import StepCount

SHAPES = ((576, 3072), (1536, 576), (2048, 8192), (8192, 2048))  # inputs → outputs
ROW_COUNTS = (1, 4, 16, 32, 128, 512)
WEIGHT_BYTES = 192 << 20  # of all copies of a matrix together
READ_BYTES = 512 << 20
PEAKS_SOURCE = Path(__file__).with_name("native_peaks.cpp")


@dataclass(frozen=True, slots=True)
class Peaks:
    """What one thread can do at most."""

    int8_gops: float
    bf16_gflops: float
    fp32_gflops: float
    read_gb_s: float

    def of(self, kind: Format) -> float:
        """Bound of a format's products, in 10^9 operations a second. bfloat16 takes whichever way is the faster one."""
        return max(self.bf16_gflops, self.fp32_gflops) if kind is Format.BF16 else self.int8_gops


def peak_meter() -> Callable[[], Peaks]:
    """Compiles the little loops that measure peaks."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(find_compiler(os.environ), [PEAKS_SOURCE], Path(folder), environment=os.environ)
        functions = ctypes.CDLL(str(built))
    for name in ("peak_int8", "peak_bf16", "peak_fp32", "read_bandwidth"):
        getattr(functions, name).restype = ctypes.c_double
    functions.read_bandwidth.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    buffer = np.ones(READ_BYTES, dtype=np.uint8)

    def measure() -> Peaks:
        read = functions.read_bandwidth(buffer.ctypes.data, buffer.nbytes)
        return Peaks(functions.peak_int8(), functions.peak_bf16(), functions.peak_fp32(), read)

    return measure


def aligned(num_bytes: int) -> NDArray[np.uint8]:
    """Bytes that start on 64."""
    room = np.zeros(num_bytes + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + num_bytes]


class Matrices:
    """Copies of one packed matrix, and a program for each number of rows that multiplies by all of them."""

    def __init__(self, library: NativeLibrary, kind: Format, num_inputs: int, num_outputs: int) -> None:
        self._library = library
        self._kind = kind
        self._sizes = (num_outputs, num_inputs)
        self.num_bytes = library.weight_bytes(kind, num_outputs, num_inputs)
        self.num_copies = max(2, WEIGHT_BYTES // self.num_bytes)
        self._tiles = aligned(self.num_bytes * self.num_copies)
        self._pack_first()
        for copy in range(1, self.num_copies):
            self._tiles[copy * self.num_bytes : (copy + 1) * self.num_bytes] = self._tiles[: self.num_bytes]

    def _pack_first(self) -> None:
        rows = np.random.default_rng(0).standard_normal(self._sizes, dtype=np.float32)
        outputs, inputs = self._sizes
        packing = api.Packing(
            self._kind,
            Source.F32,
            outputs,
            inputs,
            0,
            1,
            rows.ctypes.data,
            rows.nbytes,
            self._tiles.ctypes.data,
            self.num_bytes,
        )
        self._library.checked(self._library.sl_pack(ctypes.byref(packing)))

    @contextmanager
    def timed(self, pool: int, num_rows: int, isa: int) -> Iterator[Callable[[], float]]:
        """Gives a function that multiplies by all copies, and returns seconds of CPU for one of them."""
        outputs, inputs = self._sizes
        kind = PanelKind.PAIRS if self._kind is Format.BF16 else PanelKind.INT8
        x = np.random.default_rng(1).standard_normal((num_rows, inputs), dtype=np.float32)
        room = aligned(self._library.panel_bytes(kind, num_rows, inputs))
        out = np.zeros((num_rows, outputs), dtype=np.float32)
        panels = api.Panels(kind, inputs, room.ctypes.data)
        ops = [api.Op(OpKind.QUANTISE, 0, api.Operands(quantise=api.Quantise(x.ctypes.data, inputs, panels)))]
        for copy in range(self.num_copies):
            weight = api.Weight(self._kind, outputs, inputs, 0, self._tiles.ctypes.data + copy * self.num_bytes)
            ops.append(
                api.Op(OpKind.LINEAR, 0, api.Operands(linear=api.Linear(panels, weight, out.ctypes.data, outputs)))
            )
        header = np.zeros(len(StepCount), dtype=np.int32)
        header[StepCount.TOKENS] = num_rows
        step = api.Step(header.ctypes.data)
        limits = api.Limits(num_rows, 1, 1, 0)
        array = (api.Op * len(ops))(*ops)
        program = self._library.checked_pointer(
            self._library.sl_program_create(array, len(ops), ctypes.byref(limits), isa, 1)
        )

        def run() -> float:
            before = self._cpu_ns(pool)
            self._library.checked(self._library.sl_program_run(program, pool, ctypes.byref(step), 1, None))
            return (self._cpu_ns(pool) - before) / self.num_copies * 1e-9

        try:
            yield run
        finally:
            self._library.sl_program_destroy(program)

    def _cpu_ns(self, pool: int) -> int:
        stats = api.PoolStats()
        self._library.checked(self._library.sl_pool_read_stats(pool, ctypes.byref(stats)))
        return int(stats.cpu_ns)


def measure(library: NativeLibrary, peaks: Callable[[], Peaks], *, rounds: int) -> list[dict[str, object]]:
    """One entry for each shape, format and number of rows; medians of the rounds' shares."""
    pool = library.checked_pointer(library.sl_pool_create(1))
    results = []
    for inputs, outputs in SHAPES:
        for kind in Format:
            matrices = Matrices(library, kind, inputs, outputs)
            for num_rows in ROW_COUNTS:
                with matrices.timed(pool, num_rows) as run:
                    run()
                    entry = _entry(run, peaks, kind, 2 * num_rows * inputs * outputs, matrices.num_bytes, rounds=rounds)
                results.append({"inputs": inputs, "outputs": outputs, "format": kind.name, "rows": num_rows, **entry})
    library.sl_pool_destroy(pool)
    return results


def _entry(
    run: Callable[[], float], peaks: Callable[[], Peaks], kind: Format, operations: int, num_bytes: int, *, rounds: int
) -> dict[str, float]:
    speeds, shares, reads = [], [], []
    for _ in range(rounds):
        before, seconds, after = peaks(), run(), peaks()
        speed, read = operations / seconds * 1e-9, num_bytes / seconds * 1e-9
        speeds.append(speed)
        shares.append(2 * speed / (before.of(kind) + after.of(kind)))
        reads.append(2 * read / (before.read_gb_s + after.read_gb_s))
    return {
        "gflops": round(statistics.median(speeds), 1),
        "share_of_peak": round(statistics.median(shares), 3),
        "share_of_read_bandwidth": round(statistics.median(reads), 3),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Shares of the processor's peaks that the native kernels reach")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    library = load_native_library(os.environ, print)
    peaks = peak_meter()
    begin, load = peaks(), load_average()
    report = {
        **surroundings(),
        "instruction_set": library.best_isa(),
        "load_average": {"before": load},
        "peaks_before": {name: round(getattr(begin, name), 1) for name in Peaks.__slots__},
        "results": measure(library, peaks, rounds=arguments.rounds),
    }
    report["load_average"] = {"before": load, "after": load_average()}
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
