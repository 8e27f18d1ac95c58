"""How unevenly a skewed router loads the ranks that experts are dealt to, and what placement makes of it.

    python -m benchmarks.parallel_experts [--out FILE] [--tokens N] [--rounds N]

Tokens take distinct experts with probabilities of a Zipf law: exponent 0 is even. Placements know the loads of other
tokens than those that are measured. For each skew and placement: what the hottest part has over the mean of all parts
(tokens times the experts that they take), and the time of each part's experts for its tokens on native kernels, alone
on one thread: a step has to wait for the longest. Prints JSON.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.native_experts import HIDDEN, NUM_ACTIVE, NUM_EXPERTS, WIDTH, Layer
from benchmarks.surroundings import load_average, surroundings
from shardline_workers.kernels.native_api import Format
from shardline_workers.kernels.native_library import load_native_library
from shardline_workers.models.expert_copies import ExpertCopies
from shardline_workers.parallel.expert_placement import ExpertPlacement, place_experts

EXPONENTS = (0.0, 0.5, 1.0, 1.5)
PART_COUNTS = (4, 8)
LAYERS = ((NUM_EXPERTS, NUM_ACTIVE), (8, 2))  # of Qwen3-30B-A3B, whose parts are timed too, and of Mixtral
FORMAT = Format.W4
CPU = torch.device("cpu")

Place = Callable[[int, Sequence[int]], ExpertPlacement]

PLACEMENTS: Mapping[str, Place] = {
    "neighbours": lambda parts, loads: place_experts(len(loads), parts),
    "by load": lambda parts, loads: place_experts(len(loads), parts, loads=loads),
    "by load, 1 copy a part": lambda parts, loads: place_experts(len(loads), parts, loads=loads, num_redundant=parts),
    "by load, 4 copies a part": lambda parts, loads: place_experts(
        len(loads), parts, loads=loads, num_redundant=4 * parts
    ),
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Tokens of many sequences, with the experts that they take."""

    num_experts: int
    expert_ids: Tensor  # [num_tokens, num_active] int64
    positions: Tensor  # [num_tokens] int64

    @classmethod
    def skewed(cls, num_tokens: int, *, num_experts: int, num_active: int, exponent: float, seed: int) -> "Traffic":
        """Which expert is how hot is random, but the same for every seed."""
        ranks = torch.randperm(num_experts, generator=torch.Generator().manual_seed(7)) + 1
        generator = torch.Generator().manual_seed(seed)
        weights = (1 / ranks.double() ** exponent).expand(num_tokens, -1)
        expert_ids = torch.multinomial(weights, num_active, generator=generator)
        return cls(num_experts, expert_ids, torch.randint(4096, (num_tokens,), generator=generator))

    def loads(self) -> list[int]:
        """Tokens that take each expert."""
        counts: list[int] = torch.bincount(self.expert_ids.flatten(), minlength=self.num_experts).tolist()
        return counts

    def at(self, part: int, placement: ExpertPlacement) -> Tensor:
        """[num_rows, num_active] int32: ids of the tokens that come to a part, -1 where another part has the expert."""
        is_here = ExpertCopies(placement, device=CPU).parts(self.expert_ids, self.positions) == part
        ids = self.expert_ids.where(is_here, -1)
        return ids[is_here.any(-1)].to(torch.int32)


def imbalance(numbers: Sequence[float]) -> float:
    """The greatest over the mean."""
    return max(numbers) * len(numbers) / sum(numbers)


def part_times_ms(layer: Layer, routed: Sequence[Tensor], *, rounds: int) -> list[float]:
    """CPU time of each part's experts, by turns; medians of the rounds."""
    parts = [layer.experts_on(expert_ids) for expert_ids in routed]
    for run in parts:
        run()
    times = [[run() for run in parts] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def measure(layer: Layer, *, num_tokens: int, rounds: int) -> list[dict[str, object]]:
    """One entry for each layer, skew, number of parts and placement."""
    results: list[dict[str, object]] = []
    for (num_experts, num_active), exponent in product(LAYERS, EXPONENTS):
        seen, coming = (
            Traffic.skewed(num_tokens, num_experts=num_experts, num_active=num_active, exponent=exponent, seed=seed)
            for seed in (1, 2)
        )
        for num_parts, name in product(PART_COUNTS, PLACEMENTS):
            placement = PLACEMENTS[name](num_parts, seen.loads())
            routed = [coming.at(part, placement) for part in range(num_parts)]
            entry: dict[str, object] = {
                "experts": num_experts,
                "active": num_active,
                "zipf": exponent,
                "parts": num_parts,
                "placement": name,
                "copies": sum(map(len, placement.part_experts)) - num_experts,
                "rows_imbalance": round(imbalance([float((ids >= 0).sum()) for ids in routed]), 3),
            }
            if num_experts == NUM_EXPERTS:
                entry |= _times(part_times_ms(layer, routed, rounds=rounds))
            results.append(entry)
    return results


def _times(times_ms: Sequence[float]) -> dict[str, object]:
    return {
        "longest_ms": round(max(times_ms), 2),
        "mean_ms": round(statistics.mean(times_ms), 2),
        "time_imbalance": round(imbalance(times_ms), 3),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Load of expert-parallel ranks under a skewed router")
    parser.add_argument("--tokens", type=int, default=1024, help="of one step, all groups together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    library = load_native_library(os.environ, print)
    instruction_set = library.best_isa()
    load = load_average()
    layer = Layer(library, FORMAT, library.available_isas()[instruction_set])
    report: dict[str, object] = {
        **surroundings(),
        "instruction_set": instruction_set,
        "timed_layer": {"hidden": HIDDEN, "width": WIDTH, "format": FORMAT.name},
        "tokens": arguments.tokens,
        "results": measure(layer, num_tokens=arguments.tokens, rounds=arguments.rounds),
    }
    layer.close()
    report["load_average"] = {"before": load, "after": load_average()}
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
