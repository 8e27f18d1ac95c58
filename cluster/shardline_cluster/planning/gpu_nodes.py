"""Nodes with GPUs, and how people write them: `8xH100-80GB`, `2x8xA100-80GB`."""

import re
from dataclasses import dataclass

from shardline_cluster.planning.gpu_models import GpuModel, find_gpu

_MOST_NODES = 1024
_MOST_GPUS = 256  # of a node
_SPELLED = re.compile(r"(?:(\d+)\s*x\s*)?(?:(\d+)\s*x\s*)?([^\d\s].*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuNode:
    """One machine and those of its GPUs that are free."""

    name: str
    gpu: GpuModel
    free_gpus: tuple[int, ...]  # their numbers on that machine
    domain: str = ""  # a label of topology: nodes with the same one are near each other (a rack, a zone)


def parse_nodes(text: str) -> tuple[GpuNode, ...]:
    """Nodes as written: GPUs of one node, or nodes x GPUs; several kinds with commas between.

    Raises:
        ValueError: it is not written so, a number is out of bounds, or no such GPU is known.
    """
    nodes: list[GpuNode] = []
    for part in text.split(","):
        num_nodes, num_gpus, gpu = _parse_kind(part.strip())
        first = len(nodes)
        if first + num_nodes > _MOST_NODES:
            raise ValueError(f"{text!r} has more than {_MOST_NODES} nodes")
        nodes += [
            GpuNode(name=f"node-{number}", gpu=gpu, free_gpus=tuple(range(num_gpus)))
            for number in range(first, first + num_nodes)
        ]
    return tuple(nodes)


def _parse_kind(text: str) -> tuple[int, int, GpuModel]:
    spelled = _SPELLED.fullmatch(text)
    if spelled is None:
        raise ValueError(f"{text!r} are no GPUs: write 8xH100-80GB, or 2x8xA100-80GB for two nodes of eight")
    first, second, name = spelled.groups()
    num_nodes = _count(first, _MOST_NODES, "nodes") if second else 1
    return num_nodes, _count(second or first or "1", _MOST_GPUS, "GPUs in a node"), find_gpu(name)


def _count(digits: str, most: int, what: str) -> int:
    if len(digits) > len(str(most)) or not 1 <= int(digits) <= most:
        raise ValueError(f"{digits[:20]} {what} are out of bounds: it must be 1 to {most}")
    return int(digits)
