"""How tokens come to their experts, wherever these are, and what the experts give comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from shardline_workers.kernels.operands import Activation, PackedExpert, Routes
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers


class ExpertExchange(Protocol):
    """One way of it."""

    @property
    def leaves_parts(self) -> bool:
        """Whether the deltas are still to be summed over the ranks that share the same tokens."""
        ...

    def record(
        self,
        operations: Operations,
        delta: Tensor,
        x: Tensor,
        routes: Routes,
        *,
        experts: Sequence[PackedExpert],
        activation: Activation,
        step: StepBuffers,
    ) -> None:
        """Makes its calls.

        Args:
            operations: make the calls, or record them.
            delta: [max_tokens, hidden], result: what experts give to the step's tokens.
            x: [max_tokens, hidden], normed rows.
            routes: of the step's tokens.
            experts: of this rank.
            activation: of their gates.
            step: the batch.
        """
        ...


@dataclass(frozen=True, slots=True)
class SameTokens:
    """Implements `ExpertExchange` where all ranks that have experts have the same tokens: nothing is sent."""

    leaves_parts = True

    def record(
        self,
        operations: Operations,
        delta: Tensor,
        x: Tensor,
        routes: Routes,
        *,
        experts: Sequence[PackedExpert],
        activation: Activation,
        step: StepBuffers,
    ) -> None:
        """See `ExpertExchange.record`."""
        operations.experts(delta, x, routes, experts, activation=activation, step=step)
