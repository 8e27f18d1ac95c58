"""What a mixture of experts costs on the native CPU kernels, beside the same products as dense linear layers.

    python -m benchmarks.native_experts [--out FILE] [--rounds N]

A layer of Qwen3-30B-A3B: 128 experts of 2048 × 768, of which a token takes 8. Every expert that is taken gets as many
rows, so that the dense side is fair: it multiplies as many rows by the matrices of as many experts, one after the
other, without choosing, sorting or adding anything up. Both sides by turns (A B A B), CPU time of one thread; a layer's
weights are more than caches hold. Prints JSON.
"""

import argparse
import ctypes
import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.native_kernels import aligned
from benchmarks.surroundings import load_average, surroundings
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_api import Format, OpKind, Source
from shardline_workers.kernels.native_experts import ExpertRecorder
from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from shardline_workers.kernels.native_weights import panel_kind
from shardline_workers.kernels.operands import PackedExpert, PackedLinear, Routes, RoutingRule
from shardline_workers.kernels.step_buffers import StepCount

HIDDEN, WIDTH, NUM_EXPERTS, NUM_ACTIVE = 2048, 768, 128, 8
TOKEN_COUNTS = (1, 4, 16, 64, 512)
FORMATS = (Format.W4, Format.W8, Format.BF16)


class Layer:
    """Experts of one layer, and programs on them."""

    def __init__(self, library: NativeLibrary, kind: Format, isa: int) -> None:
        """Packs one expert and copies it.

        Args:
            library: the native code.
            kind: of all weights.
            isa: instruction set.
        """
        self._library, self._kind, self._isa = library, kind, isa
        self._pool = library.checked_pointer(library.sl_pool_create(1))
        self._kept: list[object] = []
        first = self._packed(2 * WIDTH, HIDDEN), self._packed(HIDDEN, WIDTH)
        self.experts = [
            PackedExpert(expert_id=number, gate_up=self._copy(first[0]), down=self._copy(first[1]))
            for number in range(NUM_EXPERTS)
        ]

    def close(self) -> None:
        """Ends the pool."""
        self._library.sl_pool_destroy(self._pool)

    def mixture(self, num_tokens: int) -> tuple[Callable[[], float], Callable[[], float]]:
        """Routing alone, and experts on routes that are given; each returns milliseconds."""
        recorder = ExpertRecorder(self._library, self._address)
        chosen = Routes.allocate(
            max_rows=num_tokens, num_active=NUM_ACTIVE, dtype=torch.float32, device=torch.device("cpu")
        )
        x, router = self._rows(num_tokens, HIDDEN), self._rows(NUM_EXPERTS, HIDDEN)
        rule = RoutingRule(num_active=NUM_ACTIVE)
        route = recorder.route(chosen, x, router, bias=None, rule=rule, counts=None)
        return (
            self._timed([api.Op(OpKind.ROUTE, 0, api.Operands(route=route))], num_tokens),
            self.experts_on(balanced(num_tokens)),
        )

    def experts_on(self, expert_ids: Tensor) -> Callable[[], float]:
        """Experts for rows that take these, [num_rows, NUM_ACTIVE] int32, -1 for none; returns milliseconds."""
        recorder, num_rows = ExpertRecorder(self._library, self._address), len(expert_ids)
        x, delta = self._rows(num_rows, HIDDEN), self._rows(num_rows, HIDDEN)
        routes = Routes(
            expert_ids=expert_ids,
            weights=torch.full(expert_ids.shape, 1 / NUM_ACTIVE),
            num_rows=torch.tensor([num_rows], dtype=torch.int32),
        )
        products = recorder.experts(delta, routes, self.experts, activation=api.Activation.SILU)
        deal = recorder.deal(x, routes, self.experts)
        return self._timed(
            [
                api.Op(OpKind.DEAL_ROWS, 0, api.Operands(deal_rows=deal)),
                api.Op(OpKind.EXPERTS, 0, api.Operands(experts=products)),
            ],
            num_rows,
        )

    def dense(self, num_tokens: int) -> Callable[[], float]:
        """The same products: milliseconds of all of them."""
        num_taken = min(NUM_EXPERTS, num_tokens * NUM_ACTIVE)
        num_rows = num_tokens * NUM_ACTIVE // num_taken
        x, out = self._rows(num_rows, HIDDEN), self._rows(num_rows, HIDDEN)
        taken = self.experts[:: NUM_EXPERTS // num_taken]
        inputs, activated = self._panels(taken[0].gate_up, num_rows), self._panels(taken[0].down, num_rows)
        quantise = api.Quantise(x.data_ptr(), HIDDEN, inputs)
        ops = [api.Op(OpKind.QUANTISE, 0, api.Operands(quantise=quantise))]
        for expert in taken:
            gated = api.GatedLinear(inputs, self._weight(expert.gate_up), activated, api.Activation.SILU)
            down = api.Linear(activated, self._weight(expert.down), out.data_ptr(), HIDDEN)
            ops.append(api.Op(OpKind.GATED_LINEAR, 0, api.Operands(gated_linear=gated)))
            ops.append(api.Op(OpKind.LINEAR, 0, api.Operands(linear=down)))
        return self._timed(ops, num_rows)

    def _packed(self, num_outputs: int, num_inputs: int) -> PackedLinear:
        rows = np.random.default_rng(0).standard_normal((num_outputs, num_inputs), dtype=np.float32)
        tiles = aligned(self._library.weight_bytes(self._kind, num_outputs, num_inputs))
        packing = api.Packing(
            self._kind,
            Source.F32,
            num_outputs,
            num_inputs,
            0,
            1,
            rows.ctypes.data,
            rows.nbytes,
            tiles.ctypes.data,
            tiles.nbytes,
        )
        self._library.checked(self._library.sl_pack(ctypes.byref(packing)))
        layout = (int(self._kind), num_outputs)
        return PackedLinear(num_outputs, num_inputs, (torch.from_numpy(tiles),), layout)

    def _copy(self, matrix: PackedLinear) -> PackedLinear:
        tiles = aligned(matrix.tensors[0].nbytes)
        tiles[:] = matrix.tensors[0].numpy()
        return PackedLinear(matrix.num_outputs, matrix.num_inputs, (torch.from_numpy(tiles),), matrix.layout)

    def _weight(self, matrix: PackedLinear) -> api.Weight:
        return api.Weight(self._kind, matrix.num_outputs, matrix.num_inputs, 0, matrix.tensors[0].data_ptr())

    def _panels(self, reader: PackedLinear, num_rows: int) -> api.Panels:
        kind = panel_kind(reader)
        room = aligned(self._library.panel_bytes(kind, num_rows, reader.num_inputs))
        self._kept.append(room)
        return api.Panels(kind, reader.num_inputs, room.ctypes.data)

    def _rows(self, num_rows: int, width: int) -> Tensor:
        rows = torch.randn((num_rows, width), generator=torch.Generator().manual_seed(1))
        self._kept.append(rows)
        return rows

    def _address(self, tensor: Tensor, _: torch.dtype) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _timed(self, ops: Sequence[api.Op], num_rows: int) -> Callable[[], float]:
        header = np.zeros(len(StepCount), dtype=np.int32)
        header[StepCount.TOKENS] = num_rows
        step, limits = api.Step(header.ctypes.data), api.Limits(num_rows, 1, 1, 1)
        array = (api.Op * len(ops))(*ops)
        program = self._library.checked_pointer(
            self._library.sl_program_create(array, len(ops), ctypes.byref(limits), self._isa, 1)
        )
        self._kept += [header, step]

        def run() -> float:
            before = self._cpu_ns()
            self._library.checked(self._library.sl_program_run(program, self._pool, ctypes.byref(step), 1, None))
            return (self._cpu_ns() - before) * 1e-6

        return run

    def _cpu_ns(self) -> int:
        stats = api.PoolStats()
        self._library.checked(self._library.sl_pool_read_stats(self._pool, ctypes.byref(stats)))
        return int(stats.cpu_ns)


def balanced(num_tokens: int) -> Tensor:
    """Ids [num_tokens, NUM_ACTIVE] that give all experts that are taken as many rows; in decode they lie apart."""
    num_taken = min(NUM_EXPERTS, num_tokens * NUM_ACTIVE)
    numbers = torch.arange(num_tokens * NUM_ACTIVE, dtype=torch.int32) % num_taken * (NUM_EXPERTS // num_taken)
    return numbers.view(num_tokens, NUM_ACTIVE)


def measure(library: NativeLibrary, instruction_set: str, *, rounds: int) -> list[dict[str, object]]:
    """One entry for each format and number of tokens; medians of the rounds."""
    isa = library.available_isas()[instruction_set]
    results: list[dict[str, object]] = []
    for kind in FORMATS:
        layer = Layer(library, kind, isa)
        for num_tokens in TOKEN_COUNTS:
            route, experts = layer.mixture(num_tokens)
            sides = (experts, layer.dense(num_tokens), route)
            for side in sides:
                side()
            times = [[side() for side in sides] for _ in range(rounds)]
            mixture_ms, dense_ms, route_ms = (statistics.median(column) for column in zip(*times, strict=True))
            results.append(
                {
                    "format": kind.name,
                    "tokens": num_tokens,
                    "experts_ms": round(mixture_ms, 3),
                    "dense_ms": round(dense_ms, 3),
                    "ratio": round(statistics.median(one[0] / one[1] for one in times), 3),
                    "route_ms": round(route_ms, 3),
                }
            )
        layer.close()
    return results


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="A mixture of experts beside the same products as linear layers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instruction-set", help="one of those that this machine has (default: the fastest)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    library = load_native_library(os.environ, print)
    instruction_set = arguments.instruction_set or library.best_isa()
    if instruction_set not in library.available_isas():
        parser.error(f"this machine has no {instruction_set!r}, but {', '.join(library.available_isas())}")
    load = load_average()
    report: dict[str, object] = {
        **surroundings(),
        "instruction_set": instruction_set,
        "layer": {"hidden": HIDDEN, "width": WIDTH, "experts": NUM_EXPERTS, "active": NUM_ACTIVE},
        "results": measure(library, instruction_set, rounds=arguments.rounds),
    }
    report["load_average"] = {"before": load, "after": load_average()}
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
