"""Experts cut over neighbouring ranks, tokens different in every group: all ranks get all tokens, and sum the parts.

Tokens of every rank's slice are gathered, each rank computes its part of its experts for all of them, and the parts are
summed where a slice came from. Slices are padded to the longest one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.operands import Activation, PackedExpert, Routes
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.models.expert_copies import NOBODY, ExpertCopies
from shardline_workers.models.expert_rows import ExpertRows
from shardline_workers.models.token_slices import TokenSlices


class GatheredTokens:
    """Implements `ExpertExchange`. All ranks of the stage step together; one without tokens adds none."""

    leaves_parts = False

    def __init__(
        self, copies: ExpertCopies, rows: ExpertRows, *, part: int, stage: Communicator, slices: TokenSlices
    ) -> None:
        """Takes all parts.

        Args:
            copies: of the layer.
            rows: buffers for everybody's tokens.
            part: of the experts that this rank has a share of.
            stage: ranks that have experts.
            slices: of tokens that several ranks of the stage have.
        """
        self._copies = copies
        self._rows = rows
        self._part = part
        self._stage = stage
        self._slices = slices
        self._longest = 0  # slice of this step

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
        rows = self._rows
        operations.on_host(lambda: self._gather(x, routes, step), step=step)
        operations.experts(rows.delta, rows.x, rows.routes, experts, activation=activation, step=step)
        operations.on_host(lambda: self._scatter(delta, step), step=step)

    def _gather(self, x: Tensor, routes: Routes, step: StepBuffers) -> None:
        own = self._slices.own(int(step.header[StepCount.TOKENS]))
        self._longest = self._longest_slice(own.stop - own.start, device=x.device)
        gathered = self._rows
        gathered.routes.num_rows.fill_(self._stage.place.num_ranks * self._longest)
        if self._longest == 0:
            return
        expert_ids = routes.expert_ids[own]
        parts = self._copies.parts(expert_ids, step.positions[own]).to(expert_ids.dtype)
        self._gather_rows(x[own], gathered.x)
        self._gather_rows(routes.weights[own], gathered.routes.weights)
        self._gather_rows(expert_ids, gathered.routes.expert_ids, padding=NOBODY)
        all_parts = torch.empty_like(gathered.routes.expert_ids)
        self._gather_rows(parts, all_parts)
        gathered.routes.expert_ids.masked_fill_(all_parts != self._part, NOBODY)

    def _longest_slice(self, length: int, *, device: torch.device) -> int:
        lengths = torch.empty((self._stage.place.num_ranks, 1), dtype=torch.int64, device=device)
        self._stage.all_gather(torch.tensor([length], device=device), lengths)
        return int(lengths.max())

    def _gather_rows(self, values: Tensor, gathered: Tensor, *, padding: int = 0) -> None:
        """Rows of all ranks, in their order; each has as many as the longest slice."""
        padded = values.new_full((self._longest, values.shape[1]), padding)
        padded[: len(values)] = values
        self._stage.all_gather(padded, self._by_rank(gathered))

    def _scatter(self, delta: Tensor, step: StepBuffers) -> None:
        if self._longest == 0:
            return
        reduced = delta.new_empty((self._longest, delta.shape[1]))
        self._stage.reduce_scatter_sum(self._by_rank(self._rows.delta), reduced)
        rows = delta[: int(step.header[StepCount.TOKENS])]
        own = rows[self._slices.own(len(rows))]
        own.copy_(reduced[: len(own)])
        self._slices.join(rows)

    def _by_rank(self, rows: Tensor) -> Tensor:
        """The rows that count, as [num_ranks, longest slice, width]."""
        num_ranks = self._stage.place.num_ranks
        return rows[: num_ranks * self._longest].view(num_ranks, self._longest, -1)
