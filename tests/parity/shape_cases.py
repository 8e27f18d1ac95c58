"""Every shape of at most four ranks, which of them a model can have, and a short list in which all pairs occur."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

from transformers import PreTrainedModel

from shardline_workers.parallel.parallel_plan import ParallelPlan, possible_ep
from tests.parity.tiny_transformers import (
    tiny_deepseek_v3,
    tiny_gemma3,
    tiny_llama,
    tiny_mixtral,
    tiny_qwen3,
    tiny_qwen3_moe,
)

EVERYTHING = "SHARDLINE_PARITY_EVERYTHING"  # environment variable: all cases, not only those that pairs need
DEVICE = "SHARDLINE_PARITY_DEVICE"  # environment variable: cuda compares GPUs, of which a rank takes one
MOST_RANKS = 4
_TPS, _PPS, _DPS = (1, 2, 3, 4), (1, 2, 3), (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A family, as small as it can be and still be cut unevenly."""

    make: Callable[..., PreTrainedModel]
    num_experts: int = 0  # 0: it is dense
    for_native: Mapping[str, Any] = field(default_factory=dict)  # changes with which native kernels take it


# 6 heads on 2 key-value heads, 3 or 4 layers: neither comes out even on 4 or 2 ranks.
TINY_MODELS: Mapping[str, TinyModel] = {
    "llama": TinyModel(make=tiny_llama, for_native={"head_dim": 16}),
    "qwen3": TinyModel(make=tiny_qwen3, for_native={"head_dim": 16}),
    "gemma3": TinyModel(make=tiny_gemma3, for_native={"head_dim": 16}),
    "mixtral": TinyModel(make=tiny_mixtral, num_experts=5, for_native={"head_dim": 16}),
    "qwen3-moe": TinyModel(make=tiny_qwen3_moe, num_experts=7, for_native={"head_dim": 16}),
    "deepseek-v3": TinyModel(
        make=tiny_deepseek_v3, num_experts=12, for_native={"kv_lora_rank": 24, "qk_rope_head_dim": 8}
    ),
}


def all_plans(*, num_experts: int) -> tuple[ParallelPlan, ...]:
    """The plans of at most four ranks, the fewest ranks first, without the one of a single rank."""
    return tuple(sorted(_plans(num_experts), key=lambda plan: (plan.num_ranks, str(plan))))


def _plans(num_experts: int) -> Iterator[ParallelPlan]:
    for tp, pp, dp in product(_TPS, _PPS, _DPS):
        if 1 < tp * pp * dp <= MOST_RANKS:
            for ep in possible_ep(tp=tp, dp=dp) if num_experts else (1,):
                if ep <= max(1, num_experts):
                    yield ParallelPlan(tp=tp, pp=pp, ep=ep, dp=dp)


@dataclass(frozen=True, slots=True)
class ShapeCase:
    """One model in one shape."""

    family: str
    plan: ParallelPlan

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.family} {self.plan}"


def all_cases() -> tuple[ShapeCase, ...]:
    """Every family in every shape that it can have."""
    return tuple(
        ShapeCase(family, plan)
        for family, model in TINY_MODELS.items()
        for plan in all_plans(num_experts=model.num_experts)
    )


def pairwise_cases(cases: Sequence[ShapeCase]) -> tuple[ShapeCase, ...]:
    """A few of the cases in which every pair of (family, tp, pp, ep, dp) that any of them has occurs."""
    missing = set().union(*(_pairs(case) for case in cases))
    chosen: list[ShapeCase] = []
    while missing:
        best = max(cases, key=lambda case: len(_pairs(case) & missing))  # the first of equals: always the same list
        chosen.append(best)
        missing -= _pairs(best)
    return tuple(chosen)


def _pairs(case: ShapeCase) -> set[tuple[tuple[str, object], ...]]:
    plan = case.plan
    sizes = (("family", case.family), ("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep), ("dp", plan.dp))
    return set(combinations(sizes, 2))
