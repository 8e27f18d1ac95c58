"""What stands between two norms of a layer: attention, an MLP, a mixture of experts."""

from typing import Protocol

from torch import Tensor

from shardline_workers.kernels.operands import LinearInput, PackedLinear
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers


class HalfLayer(Protocol):
    """One of them, with its weights, its buffers and its ranks. It holds no state of a step but its buffers."""

    @property
    def reader(self) -> PackedLinear:
        """What reads the normed rows."""
        ...

    @property
    def plain(self) -> Tensor | None:
        """Where it wants the normed rows as plain numbers too [max_tokens, hidden]; None: nowhere."""
        ...

    def record(self, operations: Operations, normed: LinearInput, delta: Tensor, step: StepBuffers) -> None:
        """Makes its calls.

        Args:
            operations: make the calls, or record them.
            normed: [max_tokens, hidden], what it reads.
            delta: [max_tokens, hidden], result: what is to be added to the residual, summed over ranks.
            step: the batch.
        """
        ...
