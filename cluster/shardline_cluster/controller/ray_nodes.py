"""The nodes of the Ray cluster that this process has joined, as planning sees nodes. Asks the head, and may block."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from shardline_cluster.fleet.asked_shape import GPU_RESOURCE
from shardline_cluster.planning.rank_nodes import RankNode

ADDRESS_RESOURCE = "node:"  # with the address behind it: 1 of each node, by which a bundle is bound to it
DOMAIN_LABEL = "shardline.io/domain"  # that operators give to nodes that are near each other: `ray start --labels`
_ZONE_LABEL = "ray.io/availability-zone"  # that clouds give
_ACCELERATOR = "accelerator_type:"
_LABEL_OF_ACCELERATOR = "ray.io/accelerator-type"


def rank_nodes(resource: str) -> tuple[RankNode, ...]:
    """All nodes that live and have some of the resource.

    Raises:
        RayError: Ray's head does not answer.
    """
    free = available_resources_per_node()
    return tuple(
        _rank_node(node, resource, free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get(resource, 0) >= 1
    )


def node_resource(host: str) -> str:
    """The resource of Ray that only the node with this address has."""
    return f"{ADDRESS_RESOURCE}{host}"


def _rank_node(node: Mapping[str, Any], resource: str, free: Mapping[str, float]) -> RankNode:
    resources, labels = node["Resources"], node.get("Labels") or {}
    num_slots = int(resources[resource])
    accelerator = _accelerator(resources, labels)
    knows_card = resource == GPU_RESOURCE and bool(accelerator)
    return RankNode(
        name=f"{resource}@{node['NodeID']}",
        resource=resource,
        host=node["NodeManagerAddress"],
        free_slots=min(num_slots, int(free.get(resource, 0))),
        num_slots=num_slots,
        accelerator=accelerator,
        slot_bytes=None if knows_card else int(resources.get("memory", 0)) // num_slots or None,
        domain=labels.get(DOMAIN_LABEL) or labels.get(_ZONE_LABEL, ""),
    )


def _accelerator(resources: Sequence[str] | Mapping[str, float], labels: Mapping[str, str]) -> str:
    named = next((name.removeprefix(_ACCELERATOR) for name in resources if name.startswith(_ACCELERATOR)), "")
    return labels.get(_LABEL_OF_ACCELERATOR, named)
