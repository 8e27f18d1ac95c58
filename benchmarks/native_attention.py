"""What attention of the native CPU kernels takes, by step and by format of keys and values: SmolLM2-135M's heads.

    python -m benchmarks.native_attention [--out FILE] [--rounds N]

Prints JSON. Times are CPU time of one thread for one layer; formats take turns within a round, since a shared machine's
speed changes by the minute. Layers are as many as the model has, so that decoding finds keys and values outside of
caches, as it does between the weights of a real model.
"""

import argparse
import ctypes
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.native_kernels import aligned
from benchmarks.surroundings import load_average, surroundings
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import KvFormat, OpKind, PanelKind
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from shardline_workers.kernels.step_buffers import StepCount

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE = 9, 3, 64, 64
WIDTH = (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM


@dataclass(frozen=True, slots=True)
class Case:
    """A step of sequences that are alike: tokens begin … end - 1 of each."""

    name: str
    num_seqs: int
    begin: int
    end: int
    num_layers: int
    window: int = 0

    @property
    def num_tokens(self) -> int:
        """In the step."""
        return self.num_seqs * (self.end - self.begin)

    @property
    def blocks_per_seq(self) -> int:
        """Of KV cache."""
        return -(-self.end // BLOCK_SIZE)


CASES = (
    Case("prefill of 512", 1, 0, 512, 8),
    Case("last 512 of a prefill of 2048", 1, 1536, 2048, 4),
    Case("the same with a window of 512", 1, 1536, 2048, 4, window=512),
    Case("decode, 16 sequences of 224", 16, 223, 224, 30),
    Case("decode, 16 sequences of 1056", 16, 1055, 1056, 30),
    Case("decode, 1 sequence of 1056", 1, 1055, 1056, 30),
)


class Layers:
    """Caches of a case's layers in one format, with random keys and values, and a program that attends in each."""

    def __init__(self, library: NativeLibrary, pool: int, case: Case, form: KvFormat) -> None:
        self._library = library
        self._pool = pool
        self._case = case
        sizes = (case.num_seqs * case.blocks_per_seq, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM, form, 0)
        num_bytes = library.kv_cache_bytes(api.Cache(None, *sizes))
        self._rooms = [aligned(num_bytes) for _ in range(case.num_layers)]
        self._caches = [api.Cache(room.ctypes.data, *sizes) for room in self._rooms]
        self._kept: list[NDArray[np.generic]] = []
        self._programs: list[int] = []
        context = case.num_seqs * case.end
        self._queries = np.zeros((context, NUM_HEADS * HEAD_DIM), dtype=np.uint16)
        self._program([self._stored(cache) for cache in self._caches], begin=0)()
        self._attend = self._program([self._attended(cache) for cache in self._caches], begin=case.begin)
        self._attend()

    def seconds(self) -> float:
        """CPU time of attention in one layer."""
        before = self._cpu_ns()
        self._attend()
        return (self._cpu_ns() - before) / self._case.num_layers * 1e-9

    def close(self) -> None:
        """Frees the programs: `seconds` may not be called afterwards."""
        for program in self._programs:
            self._library.sl_program_destroy(program)
        self._programs.clear()

    def _program(self, ops: Sequence[api.Op], *, begin: int) -> Callable[[], None]:
        case, array = self._case, (api.Op * len(ops))(*ops)
        num_tokens = case.num_seqs * (case.end - begin)
        limits = api.Limits(num_tokens, case.num_seqs, case.blocks_per_seq, max_sampled=1)
        program = self._library.checked_pointer(
            self._library.sl_program_create(array, len(ops), ctypes.byref(limits), self._library.sl_isa_best(), 1)
        )
        self._programs.append(program)
        step = self._step(begin)

        def run() -> None:
            self._library.checked(self._library.sl_program_run(program, self._pool, ctypes.byref(step), 1, None))

        return run

    def _step(self, begin: int) -> api.Step:
        case = self._case
        positions = np.tile(np.arange(begin, case.end), case.num_seqs)
        seqs = np.arange(case.num_seqs)
        first_places = np.repeat(seqs * case.blocks_per_seq * BLOCK_SIZE, case.end - begin)
        header = np.zeros(len(StepCount), dtype=np.int32)
        header[StepCount.TOKENS], header[StepCount.SEQUENCES] = len(positions), case.num_seqs
        return api.Step(
            header=self._keep(header),
            positions=self._keep(positions),
            cache_places=self._keep(first_places + positions),
            query_starts=self._keep((np.arange(case.num_seqs + 1) * (case.end - begin)).astype(np.int32)),
            context_lengths=self._keep(np.full(case.num_seqs, case.end, dtype=np.int32)),
            slots=self._keep(seqs),
            block_tables=self._keep(np.arange(case.num_seqs * case.blocks_per_seq)),
        )

    def _stored(self, cache: api.Cache) -> api.Op:
        rng, context = np.random.default_rng(0), self._case.num_seqs * self._case.end
        rotate = api.RotateStore(
            qkv=self._keep(rng.standard_normal((context, WIDTH), dtype=np.float32)),
            qkv_stride=WIDTH,
            queries=self._queries.ctypes.data,
            cosines=self._keep(np.ones((self._case.end, HEAD_DIM // 2), dtype=np.float32)),
            sines=self._keep(np.zeros((self._case.end, HEAD_DIM // 2), dtype=np.float32)),
            max_len=self._case.end,
            rotary_dim=HEAD_DIM,
            num_heads=NUM_HEADS,
            cache=cache,
        )
        return api.Op(OpKind.ROTATE_STORE, StepCount.TOKENS, api.Operands(rotate_store=rotate))

    def _attended(self, cache: api.Cache) -> api.Op:
        width = NUM_HEADS * HEAD_DIM
        room = self._keep(aligned(self._library.panel_bytes(PanelKind.INT8, self._case.num_tokens, width)))
        attention = api.Attention(
            queries=self._queries.ctypes.data,
            cache=cache,
            panels=api.Panels(PanelKind.INT8, width, room),
            num_heads=NUM_HEADS,
            scale=HEAD_DIM**-0.5,
            window=self._case.window,
        )
        return api.Op(OpKind.ATTENTION, StepCount.TOKENS, api.Operands(attention=attention))

    def _keep(self, array: NDArray[np.generic]) -> int:
        self._kept.append(array)
        return array.ctypes.data

    def _cpu_ns(self) -> int:
        stats = api.PoolStats()
        self._library.checked(self._library.sl_pool_read_stats(self._pool, ctypes.byref(stats)))
        return int(stats.cpu_ns)


def measure(library: NativeLibrary, *, rounds: int) -> list[dict[str, object]]:
    """One entry for each case and format: microseconds of CPU a layer by round, and their median."""
    pool = library.checked_pointer(library.sl_pool_create(1))
    results: list[dict[str, object]] = []
    for case in CASES:
        layers = {form: Layers(library, pool, case, form) for form in KvFormat}
        form_to_us: dict[KvFormat, list[float]] = {form: [] for form in KvFormat}
        for _ in range(rounds):
            for form in KvFormat:
                form_to_us[form].append(round(layers[form].seconds() * 1e6, 1))
        for of_form in layers.values():
            of_form.close()
        results += [
            {"case": case.name, "kv": form.name.lower(), "median_us": round(statistics.median(us), 1), "us": us}
            for form, us in form_to_us.items()
        ]
    library.sl_pool_destroy(pool)
    return results


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="CPU time of native attention in one layer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    library = load_native_library(os.environ, print)
    before = load_average()
    report = {
        **surroundings(),
        "instruction_set": library.best_isa(),
        "heads": {"query": NUM_HEADS, "key": NUM_KV_HEADS, "dimensions": HEAD_DIM, "block_size": BLOCK_SIZE},
        "results": measure(library, rounds=arguments.rounds),
    }
    report["load_average"] = {"before": before, "after": load_average()}
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
