"""Where a file lets matrices be cut by their inputs: its blocks of quantised weights lie along a row."""

from dataclasses import dataclass
from math import lcm
from typing import Self

from shardline_workers.models.checkpoint import Checkpoint

_WIDTH_READERS = ("down", "shared_down")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputBlocks:
    """Weights of a row that stay together; 1: they can be cut anywhere."""

    width: int = 1  # of what reads the width of an MLP or an expert
    heads: int = 1  # of what reads attention heads

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """As the types of the file's matrices tell. Nothing is read."""
        width = heads = 1
        for name in checkpoint.source.shapes:
            kind = (checkpoint.names.ours(name) or "").rpartition(".")[2]
            if kind in _WIDTH_READERS:
                width = lcm(width, checkpoint.source.stored(name).block_weights)
            elif kind == "attention_output":
                heads = lcm(heads, checkpoint.source.stored(name).block_weights)
        return cls(width=width, heads=heads)
