"""Which rows or columns of a stored matrix one rank has.

    by outputs                      by inputs
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

from dataclasses import dataclass
from enum import Enum

from shardline_workers.files.stored_tensor import StoredTensor


class SplitAxis(Enum):
    """What of a matrix is dealt out."""

    OUTPUTS = "outputs"  # rows
    INPUTS = "inputs"  # columns


@dataclass(frozen=True, slots=True)
class MatrixPart:
    """Neighbouring rows or columns."""

    axis: SplitAxis
    span: range

    def of(self, stored: StoredTensor) -> StoredTensor:
        """That part; nothing is read.

        Raises:
            ValueError: there is no such part, or it would cut a block of quantised weights.
        """
        match self.axis:
            case SplitAxis.OUTPUTS:
                return stored.rows(self.span)
            case SplitAxis.INPUTS:
                return stored.columns(self.span)


@dataclass(frozen=True, slots=True)
class StackEntry:
    """One matrix of a stack of them."""

    index: int

    def of(self, stored: StoredTensor) -> StoredTensor:
        """That matrix; nothing is read.

        Raises:
            ValueError: there is no such matrix.
        """
        return stored.entry(self.index)
