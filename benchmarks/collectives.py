"""Part of `benchmarks.parallel`: an all-reduce between ranks of one host, shared memory beside gloo, in turns.

For each number of ranks, each number of tokens (of 576 numbers, as SmolLM2-135M has them) and each contender:
microseconds of one all-reduce of float32, from the moment when this rank has passed a barrier to its return from the
call, Python included; p50, p10 and p90 over all ranks and repetitions. Ranks first wait asleep until all have returned
from the call before; then, where every rank can have a core, they meet at the barrier without sleeping, so that none
begins by waking up and none spins while another contender still works. Contenders take turns within a round, so that
each meets the same neighbours, in the same processes:

- `shared_memory`: our communicator in shared memory;
- `gloo`: torch.distributed's own all-reduce over gloo, whose order of sums is its own;
- `gloo_in_rank_order`: our communicator over gloo, which gathers and sums in rank order.

A step makes two of them a layer: `per_step_ms` is the median of that. On a machine with fewer free cores than ranks,
every figure has the scheduler's share in it: `load` tells.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch
from torch.distributed import FileStore, ProcessGroupGloo  # type: ignore[attr-defined]

from benchmarks.surroundings import load_average
from shardline_workers.collectives.shared_memory_communicator import SharedMemoryCommunicator, SharedMemoryOptions
from shardline_workers.collectives.torch_communicator import TorchCommunicator
from shardline_workers.communicator import Communicator, GroupLimits, GroupPlace
from shardline_workers.kernels.native_library import load_native_library
from shardline_workers.memory_budget import read_host_resources

_FLOATS, _LAYERS = 576, 30  # of SmolLM2-135M
_WANTED = {"num_ranks": 2, "num_tokens": 1, "gloo_to_shared_memory": 8.0}
_LIMITS = GroupLimits(join_s=120.0, wait_s=60.0)
_START_SPIN_S = 0.01  # at the barrier from which a call is measured
_Samples = dict[str, dict[str, list[float]]]  # size → contender → microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one group of processes measures."""

    num_ranks: int
    num_tokens: tuple[int, ...]
    rounds: int
    calls: int  # of one contender, one after the other, in a round
    name: str
    folder: str  # of gloo's stores
    spin_s: float


def collectives(*, is_short: bool) -> dict[str, object]:
    """The part's configuration and figures; the short form takes a few seconds and says nothing."""
    num_tokens, num_ranks = ((1,), (2,)) if is_short else ((1, 4, 16, 64, 512), (2, 3, 4))
    rounds, calls = (1, 5) if is_short else (40, 25)
    groups = [_measured(ranks, num_tokens, rounds=rounds, calls=calls) for ranks in num_ranks]
    return {
        "configuration": {"floats_of_a_token": _FLOATS, "layers": _LAYERS, "rounds": rounds, "calls": calls},
        "all_reduce": groups,
        "wanted": {**_WANTED, "measured": _wanted_ratio(groups)},
    }


def _measured(num_ranks: int, num_tokens: tuple[int, ...], *, rounds: int, calls: int) -> dict[str, object]:
    """Figures of one number of ranks, each a process of its own."""
    cores = read_host_resources().num_cores
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(num_ranks) as pool:
        plan = Plan(
            num_ranks=num_ranks,
            num_tokens=num_tokens,
            rounds=rounds,
            calls=calls,
            name=uuid.uuid4().hex,
            folder=folder,
            spin_s=SharedMemoryOptions.for_cores(num_ranks, cores).spin_s,
        )
        samples = pool.starmap(_run_rank, [(plan, rank) for rank in range(num_ranks)], chunksize=1)
    sizes = [_size_figures(size, [of_rank[str(size)] for of_rank in samples]) for size in plan.num_tokens]
    return {"num_ranks": num_ranks, "spin_us": plan.spin_s * 1e6, "load": load_average(), "sizes": sizes}


def _run_rank(plan: Plan, rank: int) -> _Samples:
    torch.set_num_threads(1)
    place = GroupPlace(rank=rank, num_ranks=plan.num_ranks)
    shared = _shared(plan, place, "measured", plan.spin_s)
    asleep = _shared(plan, place, "asleep", 0.0)
    awake = _shared(plan, place, "awake", _START_SPIN_S if plan.spin_s else 0.0)
    ordered = TorchCommunicator(
        FileStore(f"{plan.folder}/ordered", plan.num_ranks), "", place=place, device=shared.device, limits=_LIMITS
    )
    contenders: dict[str, Callable[[torch.Tensor], None]] = {
        "shared_memory": shared.all_reduce_sum,
        "gloo": _plain_gloo(plan, rank),
        "gloo_in_rank_order": ordered.all_reduce_sum,
    }
    return {str(size): _of_size(plan, size * _FLOATS, (asleep, awake), contenders) for size in plan.num_tokens}


def _shared(plan: Plan, place: GroupPlace, purpose: str, spin_s: float) -> SharedMemoryCommunicator:
    return SharedMemoryCommunicator(
        load_native_library(os.environ, lambda text: print(text, file=sys.stderr)),
        f"{plan.name}-{purpose}",
        place=place,
        limits=_LIMITS,
        options=SharedMemoryOptions(spin_s=spin_s),
    )


def _plain_gloo(plan: Plan, rank: int) -> Callable[[torch.Tensor], None]:
    store, limit = FileStore(f"{plan.folder}/plain", plan.num_ranks), timedelta(seconds=_LIMITS.wait_s)
    backend = ProcessGroupGloo(store, rank, plan.num_ranks, limit)

    def all_reduce(values: torch.Tensor) -> None:
        backend.allreduce([values]).wait()  # type: ignore[attr-defined]

    return all_reduce


def _of_size(
    plan: Plan, size: int, meetings: Sequence[Communicator], contenders: dict[str, Callable[[torch.Tensor], None]]
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(plan.rounds + 1):
        for name, all_reduce in contenders.items():
            taken = [_one_call_us(meetings, all_reduce, size) for _ in range(plan.calls)]
            if turn:  # the first one touches memory for the first time
                samples[name] += taken
    return samples


def _one_call_us(meetings: Sequence[Communicator], all_reduce: Callable[[torch.Tensor], None], size: int) -> float:
    values = torch.ones(size)
    for meeting in meetings:
        meeting.barrier()
    began = time.perf_counter()
    all_reduce(values)
    return (time.perf_counter() - began) * 1e6


def _size_figures(num_tokens: int, of_ranks: Sequence[dict[str, list[float]]]) -> dict[str, object]:
    figures = {name: _figures([us for of_rank in of_ranks for us in of_rank[name]]) for name in of_ranks[0]}
    ratio = figures["gloo"].p50_us / figures["shared_memory"].p50_us
    return {
        "num_tokens": num_tokens,
        "per_step_ms": {name: round(2 * _LAYERS * each.p50_us / 1000, 2) for name, each in figures.items()},
        **{name: asdict(each) for name, each in figures.items()},
        "gloo_to_shared_memory": round(ratio, 1),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Microseconds of one contender's calls."""

    p10_us: float
    p50_us: float
    p90_us: float
    num_samples: int


def _figures(samples_us: Sequence[float]) -> Figures:
    tenths = statistics.quantiles(samples_us, n=10)
    p10_us, p50_us, p90_us = (round(tenths[index], 1) for index in (0, 4, 8))
    return Figures(p10_us=p10_us, p50_us=p50_us, p90_us=p90_us, num_samples=len(samples_us))


def _wanted_ratio(groups: Sequence[dict[str, object]]) -> object:
    for group in groups:
        if group["num_ranks"] == _WANTED["num_ranks"]:
            sizes = group["sizes"]
            assert isinstance(sizes, list)
            return next((s["gloo_to_shared_memory"] for s in sizes if s["num_tokens"] == _WANTED["num_tokens"]), None)
    return None
