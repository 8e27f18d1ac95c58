"""The plan for a model on given nodes: the one that was asked for, or the smallest that fits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import ceil

from shardline_cluster.planning.gang_placement import Bundle, place_replicas
from shardline_cluster.planning.gpu_models import GpuModel
from shardline_cluster.planning.gpu_nodes import GpuNode
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.roofline import Roofline, roofline
from shardline_cluster.planning.shape_limits import shape_refusal
from shardline_cluster.planning.stage_memory import RUNTIME_BYTES, StageMemory, mean_stage_bytes, stage_memories
from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_shape import LatentAttention
from shardline_workers.sizing.stored_bytes import weights_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPlan:
    """Sizes that were asked for; None: whatever is best."""

    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    shares_experts: bool = False  # deal experts over a whole row
    num_replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPlan:
    """A plan that fits, where its ranks go, and how fast it could be."""

    plan: ParallelPlan
    stages: tuple[StageMemory, ...]
    replicas: tuple[tuple[Bundle, ...], ...]
    slowest_gpu: GpuModel
    roofline: Roofline  # of one replica


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPlan:
    """Why what was asked for cannot work, and the nearest that can."""

    reason: str
    nearest: ChosenPlan | None


def choose_plan(needs: ModelNeeds, nodes: Sequence[GpuNode], asked: AskedPlan) -> ChosenPlan | NoPlan:
    """The plan with the fewest GPUs that fits; of several, the one that decodes fastest by its roofline."""
    best = smallest_plan(needs, nodes, asked)
    if best is not None:
        return best
    return NoPlan(reason=_reason(needs, nodes, asked), nearest=_nearest(needs, nodes, asked))


def smallest_plan(needs: ModelNeeds, nodes: Sequence[GpuNode], asked: AskedPlan) -> ChosenPlan | None:
    """The same without a reason where nothing fits."""
    best: ChosenPlan | None = None
    for plan in _hopeful(needs, nodes, _candidates(needs, nodes, asked)):
        if best is not None and plan.num_ranks > best.plan.num_ranks:
            break
        found = fit(needs, nodes, plan, num_replicas=asked.num_replicas)
        if isinstance(found, ChosenPlan) and (best is None or _speed(found) > _speed(best)):
            best = found
    return best


def fit(needs: ModelNeeds, nodes: Sequence[GpuNode], plan: ParallelPlan, *, num_replicas: int = 1) -> ChosenPlan | str:
    """One plan on these nodes, or why it cannot work there."""
    refusal = _refusal(needs, nodes, plan)
    if refusal:
        return refusal
    stages = stage_memories(needs, plan)
    roomiest = max(node.gpu.usable_bytes for node in nodes)
    fullest = max(stages, key=lambda stage: stage.total_bytes)
    if fullest.total_bytes > roomiest:
        return (
            f"{plan} takes {shown_bytes(fullest.total_bytes)} of a GPU (weights {shown_bytes(fullest.weights_bytes)}, "
            f"keys and values {shown_bytes(fullest.kv_bytes)}, overhead {shown_bytes(fullest.overhead_bytes)}), of "
            f"which {shown_bytes(roomiest)} are usable"
        )
    replicas = place_replicas(plan, stages, nodes, num_replicas=num_replicas)
    if replicas is None:
        wanted = f"{num_replicas} replicas of {plan} need" if num_replicas > 1 else f"{plan} needs"
        return f"{wanted} {num_replicas * plan.pp * plan.dp} times {plan.tp} GPUs on one node: there are {_free(nodes)}"
    gpu = min((bundle.gpu for bundles in replicas for bundle in bundles), key=lambda gpu: gpu.bandwidth_gb_s)
    return ChosenPlan(
        plan=plan, stages=stages, replicas=replicas, slowest_gpu=gpu, roofline=roofline(needs, plan, stages, gpu)
    )


def _refusal(needs: ModelNeeds, nodes: Sequence[GpuNode], plan: ParallelPlan) -> str | None:
    """What can be said against a plan before its bytes are counted."""
    most_gpus = max((len(node.free_gpus) for node in nodes), default=0)
    if plan.tp > most_gpus:
        return f"tp={plan.tp} stays inside a node, and the largest has {most_gpus} GPUs"
    return shape_refusal(needs.shape, plan, concurrency=needs.workload.concurrency)


def _candidates(needs: ModelNeeds, nodes: Sequence[GpuNode], asked: AskedPlan) -> list[ParallelPlan]:
    """Plans as asked for that the nodes may have GPUs and memory for, smallest first."""
    num_gpus = sum(len(node.free_gpus) for node in nodes)
    most_tp = min(max((len(node.free_gpus) for node in nodes), default=0), needs.shape.attention.num_heads)
    least_ranks = _least_ranks(needs, nodes)
    plans = []
    for tp, dp in product([asked.tp] if asked.tp else range(1, most_tp + 1), _group_numbers(needs, asked)):
        most_pp = min(needs.shape.num_layers, num_gpus // (tp * dp))
        for pp in [asked.pp] if asked.pp else range(1, most_pp + 1):
            with suppress(ValueError):  # a number of expert parts that these do not allow
                plan = _as_asked(asked, tp=tp, pp=pp, dp=dp)
                if least_ranks <= plan.num_ranks <= num_gpus:
                    plans.append(plan)
    return sorted(plans, key=lambda plan: plan.num_ranks)


def _group_numbers(needs: ModelNeeds, asked: AskedPlan) -> Sequence[int]:
    """Data-parallel groups to try. More than one by itself only where a latent cache, which tensor parallelism copies,
    is then divided, and experts are not."""
    if asked.dp is not None:
        return (asked.dp,)
    gains = isinstance(needs.shape.attention, LatentAttention) and needs.shape.num_experts > 0
    return tuple(dp for dp in (1, 2, 4, 8) if dp <= needs.workload.concurrency) if gains else (1,)


def _least_ranks(needs: ModelNeeds, nodes: Sequence[GpuNode]) -> int:
    """No plan with fewer can fit: each part is somewhere, and each rank has a runtime."""
    room = max((node.gpu.usable_bytes for node in nodes), default=0) - RUNTIME_BYTES
    workload = needs.workload
    kv_bytes = needs.shape.kv.held_bytes(workload.concurrency * workload.context, dtype=workload.kv_dtype)
    return ceil((weights_bytes(needs.shape, needs.stored) + kv_bytes) / max(1, room))


def _as_asked(asked: AskedPlan, *, tp: int, pp: int, dp: int) -> ParallelPlan:
    shares_experts = asked.shares_experts or (asked.dp is None and dp > 1)
    return ParallelPlan(tp=tp, pp=pp, ep=asked.ep or (tp * dp if shares_experts else 1), dp=dp)


def _hopeful(needs: ModelNeeds, nodes: Sequence[GpuNode], plans: Iterable[ParallelPlan]) -> Iterator[ParallelPlan]:
    """Those that the model can have and whose fullest stage may fit, before layers are dealt out."""
    roomiest = max((node.gpu.usable_bytes for node in nodes), default=0)
    possible = (plan for plan in plans if _refusal(needs, nodes, plan) is None)
    return (plan for plan in possible if mean_stage_bytes(needs, plan) <= roomiest)


def _speed(chosen: ChosenPlan) -> float:
    return chosen.roofline.decode_alone


def _reason(needs: ModelNeeds, nodes: Sequence[GpuNode], asked: AskedPlan) -> str:
    """What is wrong with the plan that was asked for; where it was left open, with the largest of those."""
    if asked.tp is not None and asked.pp is not None:
        try:
            plan = _as_asked(asked, tp=asked.tp, pp=asked.pp, dp=asked.dp or 1)
        except ValueError as error:
            return str(error)
        return _why_not(needs, nodes, plan, asked)
    plans = _candidates(needs, nodes, asked)
    if plans:
        return (
            _refusal(needs, nodes, plans[0])
            or f"not even the largest plan fits: {_why_not(needs, nodes, plans[-1], asked)}"
        )
    try:
        _as_asked(asked, tp=asked.tp or asked.ep or 1, pp=1, dp=asked.dp or 1)
    except ValueError as error:
        return str(error)
    asked_sizes = ParallelPlan(tp=asked.tp or 1, pp=asked.pp or 1, dp=asked.dp or 1)
    refusal = _refusal(needs, nodes, asked_sizes)
    if refusal:
        return refusal
    least = _least_ranks(needs, nodes)
    if least > sum(len(node.free_gpus) for node in nodes):
        return f"weights, keys and values need {least} such GPUs at least: there are {_free(nodes)}"
    return f"no plan of that kind has a place on {_free(nodes)}"


def _why_not(needs: ModelNeeds, nodes: Sequence[GpuNode], plan: ParallelPlan, asked: AskedPlan) -> str:
    found = fit(needs, nodes, plan, num_replicas=asked.num_replicas)
    assert isinstance(found, str), f"{plan} fits, but was not chosen"
    return found


def _nearest(needs: ModelNeeds, nodes: Sequence[GpuNode], asked: AskedPlan) -> ChosenPlan | None:
    """Of all plans that fit, the one that differs least from what was asked for."""
    plans = _candidates(needs, nodes, AskedPlan(num_replicas=asked.num_replicas))
    for plan in _hopeful(needs, nodes, sorted(plans, key=lambda plan: _distance(plan, asked))):
        found = fit(needs, nodes, plan, num_replicas=asked.num_replicas)
        if isinstance(found, ChosenPlan):
            return found
    return None


def _distance(plan: ParallelPlan, asked: AskedPlan) -> tuple[int, int]:
    wanted = (asked.tp or plan.tp, asked.pp or plan.pp, asked.dp or plan.dp)
    return sum(
        abs(size - other) for size, other in zip((plan.tp, plan.pp, plan.dp), wanted, strict=True)
    ), plan.num_ranks


def _free(nodes: Sequence[GpuNode]) -> str:
    """`8 x H100-80GB on each of 2 nodes`."""
    kinds = Counter((len(node.free_gpus), node.gpu.name) for node in nodes)
    told = (
        f"{num_gpus} x {name} on {f'each of {num_nodes} nodes' if num_nodes > 1 else 'one node'}"
        for (num_gpus, name), num_nodes in kinds.items()
    )
    return ", ".join(told) or "no GPUs"
