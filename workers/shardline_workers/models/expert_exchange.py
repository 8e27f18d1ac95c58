"""How tokens come to their experts, wherever these are, and what the experts give comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from shardline_workers.kernels.operands import Activation, PackedExpert, Routes
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.expert_copies import NOBODY, ExpertCopies


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

    part: int  # of the experts that this rank has
    copies: ExpertCopies | None  # of the layer; None: there is one of each expert

    @property
    def leaves_parts(self) -> bool:
        """See `ExpertExchange.leaves_parts`."""
        return True

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
        if (copies := self.copies) is not None:
            operations.on_host(lambda: self._leave_to_others(copies, routes, step), step=step)
        operations.experts(delta, x, routes, experts, activation=activation, step=step)

    def _leave_to_others(self, copies: ExpertCopies, routes: Routes, step: StepBuffers) -> None:
        """Takes experts from routes whose turn another copy has."""
        num_tokens = int(routes.num_rows)
        expert_ids = routes.expert_ids[:num_tokens]
        expert_ids.masked_fill_(copies.parts(expert_ids, step.positions[:num_tokens]) != self.part, NOBODY)
