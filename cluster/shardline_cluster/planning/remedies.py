"""What would make a model fit where it does not: another format, or more of the same nodes."""

from collections.abc import Sequence
from dataclasses import replace

from shardline_cluster.planning.gpu_models import GPU_MODELS
from shardline_cluster.planning.gpu_nodes import GpuNode
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.plan_search import AskedPlan, ChosenPlan, smallest_plan
from shardline_workers.sizing.stored_bytes import QUANTISATIONS

_MOST_NODES = 32
_GPUS_OF_A_NODE = 8


def fitting_format(needs: ModelNeeds, nodes: Sequence[GpuNode], asked: AskedPlan) -> str | None:
    """The most exact format in which the model fits on these nodes; None where none does."""
    for quantisation in sorted(QUANTISATIONS.values(), key=lambda known: -known.bits):
        if smallest_plan(replace(needs, stored=quantisation), nodes, asked) is not None:
            return quantisation.name
    return None


def enough_nodes(needs: ModelNeeds, node: GpuNode, asked: AskedPlan) -> tuple[int, ChosenPlan] | None:
    """How many nodes like this one the model needs, and the plan on them; None where 32 are too few."""
    for num_nodes in range(1, _MOST_NODES + 1):
        nodes = [replace(node, name=f"node-{number}") for number in range(num_nodes)]
        chosen = smallest_plan(needs, nodes, asked)
        if chosen is not None:
            return num_nodes, chosen
    return None


def on_each_gpu(needs: ModelNeeds, asked: AskedPlan) -> list[tuple[str, ChosenPlan | None]]:
    """For every card that is known, the smallest plan on nodes of eight; None where 32 nodes are too few."""
    told: list[tuple[str, ChosenPlan | None]] = []
    for gpu in GPU_MODELS:
        found = enough_nodes(needs, GpuNode(name="", gpu=gpu, free_gpus=tuple(range(_GPUS_OF_A_NODE))), asked)
        told.append((gpu.name, found[1] if found else None))
    return told
