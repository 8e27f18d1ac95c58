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
from contextlib import ExitStack, contextmanager
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
# A Llama of 1.2 · 10^9 weights: attention's inputs and output, gate and up, down, output; how many of each.
MODEL_SHAPES = (((2048, 3072), 16), ((2048, 2048), 16), ((2048, 16384), 16), ((8192, 2048), 16), ((2048, 128256), 1))
MODEL_FORMATS = (Format.W4, Format.W8, Format.BF16)
WEIGHT_BYTES = 192 << 20  # of all copies of a matrix together
READ_BYTES = 512 << 20
PEAKS_SOURCE = Path(__file__).with_name("native_peaks.cpp")


@dataclass(frozen=True, slots=True)
class Peaks:
    """What one thread can do at most, in 10^9 operations or bytes a second; 0 where the processor cannot."""

    int8_gops: float
    bf16_gflops: float
    fp32_gflops: float
    amx_int8_gops: float  # with groups of 32 inputs
    amx_bf16_gflops: float
    read_gb_s: float

    def used(self, kind: Format, instruction_set: str) -> float:
        """Bound of the instructions that a format's products are made of."""
        if kind is not Format.BF16:
            return self.int8_gops
        if instruction_set == "amx":
            return self.amx_bf16_gflops
        return self.bf16_gflops if instruction_set == "avx512-bf16" else self.fp32_gflops

    def best(self, kind: Format) -> float:
        """Bound of the fastest instructions that there are for a format's products."""
        if kind is Format.BF16:
            return max(self.bf16_gflops, self.fp32_gflops, self.amx_bf16_gflops)
        return max(self.int8_gops, self.amx_int8_gops)


def peak_meter(library: NativeLibrary) -> Callable[[], Peaks]:
    """Compiles the little loops that measure peaks. The library has asked for what a process must ask for."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(find_compiler(os.environ), [PEAKS_SOURCE], Path(folder), environment=os.environ)
        functions = ctypes.CDLL(str(built))
    for name in ("peak_int8", "peak_bf16", "peak_fp32", "peak_amx_int8", "peak_amx_bf16", "read_bandwidth"):
        getattr(functions, name).restype = ctypes.c_double
    functions.read_bandwidth.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    buffer = np.ones(READ_BYTES, dtype=np.uint8)
    has_amx = "amx" in library.available_isas()

    def measure() -> Peaks:
        return Peaks(
            int8_gops=functions.peak_int8(),
            bf16_gflops=functions.peak_bf16(),
            fp32_gflops=functions.peak_fp32(),
            amx_int8_gops=functions.peak_amx_int8() if has_amx else 0,
            amx_bf16_gflops=functions.peak_amx_bf16() if has_amx else 0,
            read_gb_s=functions.read_bandwidth(buffer.ctypes.data, buffer.nbytes),
        )

    return measure


def aligned(num_bytes: int) -> NDArray[np.uint8]:
    """Bytes that start on 64."""
    room = np.zeros(num_bytes + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + num_bytes]


class Matrices:
    """Copies of one packed matrix, and a program for each number of rows that multiplies by all of them."""

    def __init__(
        self, library: NativeLibrary, kind: Format, sizes: tuple[int, int], *, num_copies: int | None = None
    ) -> None:
        """Packs one and copies it.

        Args:
            library: the native code.
            kind: of the weights.
            sizes: inputs and outputs.
            num_copies: None: as many as are more than caches hold.
        """
        num_inputs, num_outputs = sizes
        self._library = library
        self._kind = kind
        self._sizes = (num_outputs, num_inputs)
        self.num_bytes = library.weight_bytes(kind, num_outputs, num_inputs)
        self.num_copies = num_copies or max(2, WEIGHT_BYTES // self.num_bytes)
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
        limits = api.Limits(num_rows, 1, 1, 1)
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


def measure(
    library: NativeLibrary, peaks: Callable[[], Peaks], instruction_set: str, *, rounds: int
) -> list[dict[str, object]]:
    """One entry for each shape, format and number of rows; medians of the rounds' shares."""
    pool = library.checked_pointer(library.sl_pool_create(1))
    isa = library.available_isas()[instruction_set]
    results = []
    for inputs, outputs in SHAPES:
        for kind in Format:
            matrices = Matrices(library, kind, (inputs, outputs))
            for num_rows in ROW_COUNTS:
                operations = 2 * num_rows * inputs * outputs
                with matrices.timed(pool, num_rows, isa) as run:
                    run()
                    figures = [_figures(run, peaks, operations, matrices.num_bytes) for _ in range(rounds)]
                shares = _medians(figures, kind, instruction_set)
                results.append({"inputs": inputs, "outputs": outputs, "format": kind.name, "rows": num_rows, **shares})
    library.sl_pool_destroy(pool)
    return results


@dataclass(frozen=True, slots=True)
class _Figures:
    """One round: speed, and the peaks before and after it."""

    gops: float
    gb_s: float
    peaks: tuple[Peaks, Peaks]


def _figures(run: Callable[[], float], peaks: Callable[[], Peaks], operations: int, num_bytes: int) -> _Figures:
    before, seconds, after = peaks(), run(), peaks()
    return _Figures(operations / seconds * 1e-9, num_bytes / seconds * 1e-9, (before, after))


def _medians(figures: list[_Figures], kind: Format, instruction_set: str) -> dict[str, float]:
    def median(value: Callable[[_Figures], float]) -> float:
        return round(statistics.median(map(value, figures)), 3)

    def mean(peaks: tuple[Peaks, Peaks], of: Callable[[Peaks], float]) -> float:
        return statistics.fmean(map(of, peaks))

    return {
        "gops": median(lambda one: one.gops),
        "share_of_peak": median(lambda one: one.gops / mean(one.peaks, lambda peak: peak.used(kind, instruction_set))),
        "share_of_best_peak": median(lambda one: one.gops / mean(one.peaks, lambda peak: peak.best(kind))),
        "share_of_read_bandwidth": median(lambda one: one.gb_s / mean(one.peaks, lambda peak: peak.read_gb_s)),
    }


def measure_model(
    library: NativeLibrary, peaks: Callable[[], Peaks], instruction_set: str, *, rounds: int
) -> list[dict[str, object]]:
    """Batch 1 through all matrices of a model of 1.2 · 10^9 weights, by format: the share of the memory's speed."""
    pool = library.checked_pointer(library.sl_pool_create(1))
    isa = library.available_isas()[instruction_set]
    results = []
    for kind in MODEL_FORMATS:
        parts = [Matrices(library, kind, sizes, num_copies=copies) for sizes, copies in MODEL_SHAPES]
        num_bytes = sum(part.num_bytes * part.num_copies for part in parts)
        with ExitStack() as stack:
            runs = [(part.num_copies, stack.enter_context(part.timed(pool, 1, isa))) for part in parts]

            def step(runs: list[tuple[int, Callable[[], float]]] = runs) -> float:
                return sum(copies * run() for copies, run in runs)

            step()
            figures = [_figures(step, peaks, 0, num_bytes) for _ in range(rounds)]
        shares = [2 * one.gb_s / (one.peaks[0].read_gb_s + one.peaks[1].read_gb_s) for one in figures]
        results.append(
            {
                "format": kind.name,
                "mib": num_bytes >> 20,
                "gb_s": round(statistics.median(one.gb_s for one in figures), 1),
                "share_of_read_bandwidth": round(statistics.median(shares), 3),
            }
        )
    library.sl_pool_destroy(pool)
    return results


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Shares of the processor's peaks that the native kernels reach")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instruction-set", help="one of those that this machine has (default: the fastest)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    library = load_native_library(os.environ, print)
    instruction_set = arguments.instruction_set or library.best_isa()
    if instruction_set not in library.available_isas():
        parser.error(f"this machine has no {instruction_set!r}, but {', '.join(library.available_isas())}")
    peaks = peak_meter(library)
    begin, load = peaks(), load_average()
    report = {
        **surroundings(),
        "instruction_set": instruction_set,
        "peaks_before": {name: round(getattr(begin, name), 1) for name in Peaks.__slots__},
        "results": measure(library, peaks, instruction_set, rounds=arguments.rounds),
        "model_batch_1": measure_model(library, peaks, instruction_set, rounds=arguments.rounds),
    }
    report["load_average"] = {"before": load, "after": load_average()}
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
