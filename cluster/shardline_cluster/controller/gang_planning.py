"""In which shape a replica starts, and when it leaves a smaller one. Pure.

A replica gets the sizes that were asked for, on nodes that have room for them. Where a GPU is lost and does not come
back within a limit, it gets the largest shape that what is left has room for; once there has been room for all of it
for a while, it is stopped, and starts in full.

    full shape fits ──start──▶ in full ──a rank's node is lost──▶ empty ──missing_s──▶ smaller
          ▲                                                                               │
          └───────────────── drained ◀── there has been room for returned_s ◀─────────────┘
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from shardline_cluster.fleet.asked_shape import asked_plan, fixed_plan, is_one_rank, least_plan, rank_resource
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.gang import Gang, RankBundle
from shardline_cluster.planning.gang_placement import Bundle, place_replicas
from shardline_cluster.planning.model_needs import ModelNeeds, Workload
from shardline_cluster.planning.plan_search import fit, smallest_plan
from shardline_cluster.planning.rank_nodes import RankNode, gpu_nodes
from shardline_cluster.planning.stage_memory import StageMemory
from shardline_workers.parallel.parallel_plan import ParallelPlan, possible_ep

_NOTHING = StageMemory(layers=range(0), weights_bytes=0, kv_bytes=0, overhead_bytes=0)
_KEPT_DTYPE = "bfloat16"  # of keys and values where it is left open


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplanTimes:
    """How patient it is, in seconds."""

    missing_s: float = 20.0  # until a replica whose GPUs are missing starts in a smaller shape
    returned_s: float = 30.0  # that there must have been room for the whole shape before it goes back

    def __post_init__(self) -> None:
        for name, seconds in (("missing_s", self.missing_s), ("returned_s", self.returned_s)):
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} is {seconds:g} s; it must be at least 0, and finite")


def wants_slots(deployment: Deployment) -> bool:
    """Whether it is planned here which ranks go where: they take slots of nodes, and may be several."""
    return bool(rank_resource(deployment.options)) and not is_one_rank(deployment.options)


def full_plan(deployment: Deployment) -> ParallelPlan | None:
    """The shape that it runs in when nothing is missing; None: the smallest that fits, whatever that is."""
    return fixed_plan(deployment.options)


def plan_gang(
    deployment: Deployment, nodes: Sequence[RankNode], *, others: Mapping[str, int], may_shrink: bool
) -> Gang | str:
    """What a replica is to be started as, or why it has to wait.

    Args:
        deployment: whose replica.
        nodes: with the slots that are free for it.
        others: replicas of the same deployment, by node.
        may_shrink: the full shape has been missing for long enough.
    """
    full = full_plan(deployment)
    if not wants_slots(deployment):
        return Gang(plan=full or least_plan(deployment.options))
    nodes = _of_resource(deployment, nodes)
    if full is None:
        return _smallest(deployment, nodes, others=others)
    placed = _place(deployment, full, nodes, others=others)
    if not isinstance(placed, str):
        return Gang(plan=full, bundles=placed)
    if not (may_shrink and deployment.options.replan):
        return placed
    for plan in _smaller(full, num_slots=sum(node.free_slots for node in nodes)):
        smaller = _place(deployment, plan, nodes, others=others)
        if not isinstance(smaller, str):
            return Gang(plan=plan, bundles=smaller, note=f"re-planned from {full}: {placed}")
    return placed


def fits_in_full(deployment: Deployment, nodes: Sequence[RankNode], *, others: Mapping[str, int]) -> bool:
    """Whether there is room for the shape that was asked for."""
    full, nodes = full_plan(deployment), _of_resource(deployment, nodes)
    return full is not None and not isinstance(_place(deployment, full, nodes, others=others), str)


def needs_of(deployment: Deployment, *, dp: int = 1) -> ModelNeeds | None:
    """What its replicas need; None where nobody has counted it: the simulated engine has no model."""
    options, size = deployment.options, deployment.size
    if size is None:
        return None
    context = max(deployment.max_model_len, ceil((options.kv_cache_tokens or 0) / dp))
    kv_dtype = _KEPT_DTYPE if options.kv_cache_dtype == "auto" else options.kv_cache_dtype
    batched = options.max_num_batched_tokens or options.max_num_seqs
    workload = Workload(context=context, concurrency=dp, kv_dtype=kv_dtype, batched_tokens=batched)
    return ModelNeeds(shape=size.shape, stored=size.stored, workload=workload)


def _smallest(deployment: Deployment, nodes: Sequence[RankNode], *, others: Mapping[str, int]) -> Gang | str:
    """For sizes that are auto."""
    asked, known = asked_plan(deployment.options), gpu_nodes(nodes)
    needs = needs_of(deployment, dp=asked.dp or 1)
    if needs is None:
        plan = least_plan(deployment.options)
    else:
        found = smallest_plan(needs, known, asked)
        if found is None:
            return f"no shape of {deployment.name} fits on {_told(nodes)}"
        plan = found.plan
    placed = _place(deployment, plan, nodes, others=others)
    return placed if isinstance(placed, str) else Gang(plan=plan, bundles=placed)


def _place(
    deployment: Deployment, plan: ParallelPlan, nodes: Sequence[RankNode], *, others: Mapping[str, int]
) -> tuple[RankBundle, ...] | str:
    """Where the ranks of a plan go, or why there is no room for them."""
    needs, known = needs_of(deployment, dp=plan.dp), gpu_nodes(nodes)
    if plan.num_ranks > sum(node.free_slots for node in nodes):
        return f"{plan} takes {plan.num_ranks} x {rank_resource(deployment.options)}, but there are {_told(nodes)}"
    stages: tuple[StageMemory, ...] = (_NOTHING,) * plan.pp
    if needs is not None:
        found = fit(needs, known, plan)
        if isinstance(found, str):
            return found
        stages = found.stages
    replicas = place_replicas(plan, stages, known, others=others)
    if replicas is None:
        return f"{plan} needs {plan.pp * plan.dp} times {plan.tp} free slots on one node: there are {_told(nodes)}"
    hosts = {node.name: node.host for node in nodes}
    return tuple(_bundle(bundle, hosts) for bundle in replicas[0])


def _of_resource(deployment: Deployment, nodes: Sequence[RankNode]) -> list[RankNode]:
    return [node for node in nodes if node.resource == rank_resource(deployment.options)]


def _bundle(bundle: Bundle, hosts: Mapping[str, str]) -> RankBundle:
    return RankBundle(node=bundle.node, host=hosts[bundle.node], ranks=bundle.ranks)


def _smaller(full: ParallelPlan, *, num_slots: int) -> Iterator[ParallelPlan]:
    """Other shapes with at most as many ranks: the most ranks first, of equals those that differ least from it."""
    most = min(full.num_ranks, num_slots)
    plans = {
        _with_experts(full, tp=tp, pp=pp, dp=dp)
        for dp in range(1, full.dp + 1)
        for tp in range(1, most // dp + 1)
        for pp in range(1, most // (dp * tp) + 1)
    }
    yield from sorted(plans - {full}, key=lambda plan: (-plan.num_ranks, _distance(plan, full), -plan.tp))


def _with_experts(full: ParallelPlan, *, tp: int, pp: int, dp: int) -> ParallelPlan:
    """Experts dealt as before, as far as the ranks allow it."""
    row = tp * dp
    wanted = row if full.ep == full.tp * full.dp and full.ep > 1 else full.ep
    ep = max(ep for ep in possible_ep(tp=tp, dp=dp) if ep <= max(1, wanted))
    return ParallelPlan(tp=tp, pp=pp, ep=ep, dp=dp)


def _distance(plan: ParallelPlan, full: ParallelPlan) -> int:
    return abs(plan.tp - full.tp) + abs(plan.pp - full.pp) + abs(plan.dp - full.dp)


def _told(nodes: Sequence[RankNode]) -> str:
    free = [node.free_slots for node in nodes if node.free_slots]
    where = f"{len(free)} nodes" if len(free) > 1 else "one node"
    return f"{' + '.join(map(str, free))} free on {where}" if free else "none free"
