"""Which GPUs the ranks of replicas get. Pure: nodes in, bundles out.

A tensor-parallel group is one bundle on one node; stages may lie on several nodes. Replicas of one model go to
different nodes as far as there are any, so that a lost node takes few of them; the bundles of one replica stay
together: on few nodes, in one domain where one has room.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from shardline_cluster.planning.gpu_models import GpuModel
from shardline_cluster.planning.gpu_nodes import GpuNode
from shardline_cluster.planning.stage_memory import StageMemory
from shardline_workers.parallel.parallel_plan import ParallelPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One tensor-parallel group on one node: `ranks[i]` runs on `gpus[i]`."""

    stage: int
    group: int
    node: str
    gpu: GpuModel
    gpus: tuple[int, ...]
    ranks: tuple[int, ...]
    rank_bytes: int  # of the fullest rank


def place_replicas(
    plan: ParallelPlan,
    stages: Sequence[StageMemory],
    nodes: Sequence[GpuNode],
    *,
    num_replicas: int = 1,
    others: Mapping[str, int] | None = None,
) -> tuple[tuple[Bundle, ...], ...] | None:
    """The bundles of each replica, in the order of ranks; None where there is no room for all. `others` are replicas of
    the model that are there already, by node."""
    used: dict[str, int] = {node.name: (others or {}).get(node.name, 0) for node in nodes}  # replicas on it
    free = {node.name: node for node in nodes}
    placed: list[tuple[Bundle, ...]] = []
    for _ in range(num_replicas):
        bundles = _place_near(plan, stages, list(free.values()), used)
        if bundles is None:
            return None
        placed.append(bundles)
        for name in {bundle.node for bundle in bundles}:
            used[name] += 1
        for bundle in bundles:
            node = free[bundle.node]
            free[bundle.node] = replace(node, free_gpus=tuple(gpu for gpu in node.free_gpus if gpu not in bundle.gpus))
    return tuple(placed)


def _place_near(
    plan: ParallelPlan, stages: Sequence[StageMemory], nodes: Sequence[GpuNode], used: dict[str, int]
) -> tuple[Bundle, ...] | None:
    """Inside one domain if any has room, the one with the fewest replicas first; else anywhere."""
    domains = sorted({node.domain for node in nodes}, key=lambda domain: (_replicas_in(domain, nodes, used), domain))
    for domain in domains:
        bundles = _place_one(plan, stages, [node for node in nodes if node.domain == domain], used)
        if bundles is not None:
            return bundles
    return _place_one(plan, stages, nodes, used)


def _replicas_in(domain: str, nodes: Sequence[GpuNode], used: dict[str, int]) -> int:
    return sum(used[node.name] for node in nodes if node.domain == domain)


def _place_one(
    plan: ParallelPlan, stages: Sequence[StageMemory], nodes: Sequence[GpuNode], used: dict[str, int]
) -> tuple[Bundle, ...] | None:
    """One replica. Stages that fewest nodes have room for choose first, others in their order: whatever has room for
    the first has room for the others too, so that this order never misses a placement."""
    left = {node.name: list(node.free_gpus) for node in nodes}
    order = sorted(range(plan.pp), key=lambda stage: _num_fitting(stages[stage], nodes))
    wanted = [(stage, group) for stage in order for group in range(plan.dp)]
    mine: set[str] = set()
    bundles: list[Bundle] = []
    for number, (stage, group) in enumerate(wanted):
        rank_bytes = stages[stage].total_bytes
        fitting = [node for node in nodes if len(left[node.name]) >= plan.tp and node.gpu.usable_bytes >= rank_bytes]
        if not fitting:
            return None
        node = min(fitting, key=_preference(plan, left, mine, used, num_wanted=len(wanted) - number))
        mine.add(node.name)
        gpus, left[node.name] = tuple(left[node.name][: plan.tp]), left[node.name][plan.tp :]
        ranks = tuple(plan.rank(stage=stage, group=group, place=place) for place in range(plan.tp))
        bundles.append(
            Bundle(
                stage=stage, group=group, node=node.name, gpu=node.gpu, gpus=gpus, ranks=ranks, rank_bytes=rank_bytes
            )
        )
    return tuple(sorted(bundles, key=lambda bundle: bundle.ranks))


def _num_fitting(stage: StageMemory, nodes: Sequence[GpuNode]) -> int:
    return sum(node.gpu.usable_bytes >= stage.total_bytes for node in nodes)


def _preference(
    plan: ParallelPlan, left: dict[str, list[int]], mine: set[str], used: dict[str, int], *, num_wanted: int
) -> Callable[[GpuNode], tuple[object, ...]]:
    """The least is the best: a node that this replica has already; then one with few replicas; then one that takes all
    the rest, the tightest of those; then the roomiest."""

    def key(node: GpuNode) -> tuple[object, ...]:
        slots = len(left[node.name]) // plan.tp
        takes_all = slots >= num_wanted
        return (
            node.name not in mine,
            used[node.name],
            not takes_all,
            slots if takes_all else -slots,
            node.gpu.usable_bytes,
        )

    return key
