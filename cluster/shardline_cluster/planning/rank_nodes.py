"""The machines that a launcher has for ranks, and how planning sees them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from shardline_cluster.planning.gpu_models import GIB, GpuModel, find_gpu
from shardline_cluster.planning.gpu_nodes import GpuNode

_UNKNOWN_GIB = 1e6  # of a card that nobody knows: whether the model fits is seen when it loads


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNode:
    """One machine. A slot is what one rank takes: a GPU, or one of another resource."""

    name: str  # the launcher's: another one for each resource
    resource: str  # of which a rank takes 1
    host: str  # address
    free_slots: int
    num_slots: int
    accelerator: str = ""  # the kind of its GPUs, as the launcher calls it
    slot_bytes: int | None = None  # memory of a slot; None: that of the accelerator
    domain: str = ""  # nodes with the same one are near each other


def without(nodes: Iterable[RankNode], taken: Mapping[str, int]) -> tuple[RankNode, ...]:
    """The same nodes with fewer free slots: by node, so many are taken."""
    return tuple(replace(node, free_slots=max(0, node.free_slots - taken.get(node.name, 0))) for node in nodes)


def with_back(nodes: Iterable[RankNode], given: Mapping[str, int]) -> tuple[RankNode, ...]:
    """The same nodes as if so many slots of each were given back."""
    return tuple(
        replace(node, free_slots=min(node.num_slots, node.free_slots + given.get(node.name, 0))) for node in nodes
    )


def gpu_nodes(nodes: Sequence[RankNode]) -> list[GpuNode]:
    """Those with a free slot, as planning knows nodes."""
    return [
        GpuNode(name=node.name, gpu=_card(node), free_gpus=tuple(range(node.free_slots)), domain=node.domain)
        for node in nodes
        if node.free_slots
    ]


def _card(node: RankNode) -> GpuModel:
    """What a slot is to planning: a card that is known by name, or something of that memory."""
    if node.slot_bytes is None:
        try:
            return find_gpu(node.accelerator)
        except ValueError:
            return GpuModel(node.accelerator or "GPU", _UNKNOWN_GIB, bandwidth_gb_s=1, fp16_tflops=1)
    return GpuModel(node.accelerator or "slot", node.slot_bytes / GIB, bandwidth_gb_s=1, fp16_tflops=1)
