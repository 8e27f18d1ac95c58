"""Which part of each matrix belongs to which rank of a tensor-parallel group. Pure.

    split by outputs                split by inputs
    query, key, value,              attention_output, down
    gate, up, lm_head

       inputs ─▶                       inputs ─▶
    o ┌───────────┐                 o ┌─────┬─────┐
    u │  rank 0   │                 u │     │     │
    t ├───────────┤                 t │ r 0 │ r 1 │
    ▼ │  rank 1   │                 ▼ │     │     │
      └───────────┘                   └─────┴─────┘

A rank that has some outputs of the first has just those inputs of the second: no numbers go from rank to rank between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

TILE_OUTPUTS = 16  # the least that kernels compute at once
BLOCK_INPUTS = 32  # inputs that share a scale


class SplitAxis(Enum):
    """What of a matrix is dealt out."""

    OUTPUTS = "outputs"  # rows
    INPUTS = "inputs"  # columns


@dataclass(frozen=True, slots=True)
class MatrixSplit:
    """How one matrix is dealt out: along an axis, in pieces of `unit` rows or columns that stay together."""

    axis: SplitAxis
    unit: int


@dataclass(frozen=True, slots=True)
class RankSlice:
    """One rank of a group. The default is a group of one: it has everything."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"the rank is {self.rank} of {self.size}; it must be 0 to {self.size - 1}")

    @property
    def name(self) -> str:
        """For keys of caches: equal names mean equal parts of equal files."""
        return f"tp{self.rank}of{self.size}"

    def span(self, count: int, *, unit: int) -> range:
        """This rank's neighbours of `count` rows or columns, whole units each; the first ranks have one unit more.

        Raises:
            ValueError: `count` is no multiple of `unit`, or there are more ranks than units.
        """
        num_units, rest = divmod(count, unit)
        if rest:
            raise ValueError(f"{count} rows or columns cannot be dealt out in units of {unit}: take one rank")
        if num_units < self.size:
            raise ValueError(
                f"{count} rows or columns in units of {unit} are too few for {self.size} ranks: take at most"
                f" {num_units}"
            )
        least, more = divmod(num_units, self.size)
        first = self.rank * least + min(self.rank, more)
        return range(first * unit, (first + least + (self.rank < more)) * unit)


def decoder_splits(*, num_heads: int, num_kv_heads: int, head_dim: int) -> Mapping[str, MatrixSplit]:
    """How each matrix of a decoder is dealt out, by the last part of its name (see tensor_names).

    Query heads stay with the key-value head that they share, so that a rank attends alone. What has no entry (the
    embedding, norms) every rank has whole.
    """
    group = num_heads // num_kv_heads * head_dim
    return {
        "query": MatrixSplit(SplitAxis.OUTPUTS, group),
        "key": MatrixSplit(SplitAxis.OUTPUTS, head_dim),
        "value": MatrixSplit(SplitAxis.OUTPUTS, head_dim),
        "attention_output": MatrixSplit(SplitAxis.INPUTS, group),
        "gate": MatrixSplit(SplitAxis.OUTPUTS, BLOCK_INPUTS),
        "up": MatrixSplit(SplitAxis.OUTPUTS, BLOCK_INPUTS),
        "down": MatrixSplit(SplitAxis.INPUTS, BLOCK_INPUTS),
        "lm_head": MatrixSplit(SplitAxis.OUTPUTS, TILE_OUTPUTS),
    }
