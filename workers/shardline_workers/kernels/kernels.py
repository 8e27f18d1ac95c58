"""One implementation of every operation, and of the layouts that they work on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from shardline_workers.kernels.operands import AttentionShape, KvCache, LinearInput, MatrixSource, PackedLinear
from shardline_workers.kernels.operations import Operations


@dataclass(frozen=True, slots=True)
class RunTimes:
    """What one run took, in seconds."""

    wall_s: float
    waiting_s: float = 0.0  # of it, until a neighbour in the pipeline had sent something, or could take it

    @property
    def busy_s(self) -> float:
        """Of it, computing, exchanges within the stage included."""
        return self.wall_s - self.waiting_s


class StepProgram(Protocol):
    """The calls of a step, recorded: they can be made again and again, each time for the step that the buffers hold."""

    def run(self, num_threads: int) -> RunTimes:
        """Computes the step that the buffers hold now, on so many threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericFormats:
    """What numbers are kept in."""

    weights: str  # a dtype's name, or "file": in the file's own format
    activations: torch.dtype
    queries: torch.dtype  # once they are turned
    kv_cache: torch.dtype


class Kernels(Protocol):
    """One implementation of every operation, and of the layouts that they work on."""

    @property
    def name(self) -> str:
        """What a user calls it."""
        ...

    @property
    def formats(self) -> NumericFormats:
        """What its buffers are in."""
        ...

    @property
    def numerics(self) -> dict[str, str]:
        """All that its results depend on beside weights and requests: enters the numerics id."""
        ...

    @property
    def is_batch_invariant(self) -> bool:
        """Whether a request gives the same bits in any batch."""
        ...

    @property
    def details(self) -> dict[str, str]:
        """What may be known beside the name and does not change results: the instruction set, say."""
        ...

    @property
    def block_sizes(self) -> tuple[int, ...] | None:
        """Sizes of KV blocks in tokens that it can work with, the best one first; None where any will do."""
        ...

    def pack_linear(self, parts: Sequence[MatrixSource]) -> PackedLinear:
        """Takes matrices with the same inputs into the layout that `linear` reads, their outputs one after the other.

        Raises:
            ModelFileError: a part is stored in a type that cannot be read.
        """
        ...

    def pack_apart(self, groups: Sequence[Sequence[MatrixSource]]) -> PackedLinear:
        """The same for groups of matrices that `linear_apart` and `head_linear` read: each has places of its own.

        Raises:
            ModelFileError: a part is stored in a type that cannot be read.
        """
        ...

    def pack_gated(self, gate: MatrixSource, up: MatrixSource) -> PackedLinear:
        """Takes two matrices of one shape into the layout that `gated_linear` reads.

        Raises:
            ModelFileError: one is stored in a type that cannot be read.
        """
        ...

    def finish_packing(self) -> None:
        """Every weight was packed."""
        ...

    def allocate_linear_input(self, readers: Sequence[PackedLinear], *, max_rows: int) -> LinearInput:
        """A buffer for rows that any of `readers`, all as wide, will read."""
        ...

    def kv_block_bytes(self, shape: AttentionShape, *, block_size: int) -> int:
        """Memory that one block takes in one layer."""
        ...

    def allocate_kv_cache(self, shape: AttentionShape, *, num_blocks: int, block_size: int) -> KvCache:
        """Room for one layer's keys and values."""
        ...

    def record(self, calls: Callable[[Operations], None]) -> StepProgram:
        """The calls that `calls` makes, to be made at every step. It keeps their buffers and weights alive."""
        ...

    def close(self) -> None:
        """Frees threads. No program may be run afterwards."""
        ...
