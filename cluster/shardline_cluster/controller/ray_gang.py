"""The actors of one replica: its leader, and one for each other rank that does not run as the leader's child.

Ray places them and carries the leader's address to the ranks, once. Steps and tensors go from process to process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from shardline_cluster.controller.placement import CPU_SLIVER
from shardline_cluster.controller.ray_nodes import node_resource
from shardline_cluster.fleet.asked_shape import GPU_RESOURCE, rank_resource
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec

_ADDRESS_SHARE = 0.001  # of a node's address, which binds a bundle to it
CONCURRENT_CALLS = 8  # of an actor; `ended` and `gang_address` wait in one or two of them


@dataclass(frozen=True, slots=True)
class GangActors:
    """Handles: of the leader, and of the other ranks by their number."""

    leader: Any
    ranks: Mapping[int, Any] = field(default_factory=dict)


def bundle_resources(spec: ReplicaSpec) -> list[dict[str, float]]:
    """What each bundle of the replica's placement group holds."""
    resource, gang = rank_resource(spec.deployment.options), spec.gang
    if not gang.bundles:
        return [_resources(resource, num_ranks=gang.plan.num_ranks)]
    return [
        {**_resources(resource, num_ranks=len(bundle.ranks)), node_resource(bundle.host): _ADDRESS_SHARE}
        for bundle in gang.bundles
    ]


def request_group(spec: ReplicaSpec, name: str) -> PlacementGroup:
    """Asks Ray for the replica's resources; they may come much later."""
    bundles = bundle_resources(spec)
    # Bundles that are bound to nodes need no strategy; one alone is one anyhow.
    return placement_group(bundles, strategy="PACK", name=name, lifetime="detached")


def make_actors(spec: ReplicaSpec, name: str, group: PlacementGroup, *, leader: type, rank: type) -> GangActors:
    """Makes them in a group that has its resources. Ranks go where the group's bundles are, with one slot each."""
    resource, gang = rank_resource(spec.deployment.options), spec.gang
    if not gang.bundles:
        options = _options(name, group, 0, _resources(resource, num_ranks=gang.plan.num_ranks))
        return GangActors(ray.remote(leader).options(**options).remote(to_json(spec)))
    bundle_of = {number: index for index, bundle in enumerate(gang.bundles) for number in bundle.ranks}
    mine = _resources(resource, num_ranks=1)
    handle = ray.remote(leader).options(**_options(name, group, bundle_of[0], mine)).remote(to_json(spec))
    others = sorted(number for number in bundle_of if number)
    if not others:
        return GangActors(handle)
    address = handle.gang_address.remote()  # an answer that Ray hands on to the ranks when it is there
    ranks = {}
    for number in others:
        options = _options(rank_name(name, number), group, bundle_of[number], mine)
        ranks[number] = ray.remote(rank).options(**options).remote(to_json(spec), number)
        ranks[number].serve.remote(address)
    return GangActors(handle, ranks)


def rank_name(name: str, rank: int) -> str:
    """The name of a rank's actor, beside its leader's."""
    return f"{name}:{rank}"


def _options(name: str, group: PlacementGroup, bundle: int, resources: dict[str, float]) -> dict[str, Any]:
    custom = {key: value for key, value in resources.items() if key not in ("CPU", GPU_RESOURCE)}
    return {
        "name": name,
        "lifetime": "detached",
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": CONCURRENT_CALLS,
        "num_cpus": resources["CPU"],
        "num_gpus": resources.get(GPU_RESOURCE, 0.0),
        "resources": custom,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle),
    }


def _resources(resource: str, *, num_ranks: int) -> dict[str, float]:
    """Of so many ranks; those without a resource are children of the leader and share its sliver."""
    if not resource:
        return {"CPU": CPU_SLIVER}
    return {"CPU": num_ranks * CPU_SLIVER, resource: float(num_ranks)}
