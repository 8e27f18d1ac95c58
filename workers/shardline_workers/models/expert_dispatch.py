"""Experts whole on single ranks, other tokens in every group: each token goes where its experts are, and comes back.

    rank 0: tokens a b   experts 0 1        a → experts 1, 2        rank 0 computes a, c
    rank 1: token  c     experts 2 3        c → experts 0, 3        rank 1 computes a, c

A rank gets a token once, however many of its experts it takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.operands import Activation, PackedExpert, Routes
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from shardline_workers.models.expert_copies import NOBODY, ExpertCopies
from shardline_workers.models.expert_rows import ExpertRows
from shardline_workers.models.token_slices import TokenSlices


@dataclass(frozen=True, slots=True)
class _Sent:
    """What went out, until it comes back."""

    tokens: Tensor  # [sum(send_rows)] int64, of this rank's slice, by destination
    send_rows: list[int]  # to each rank
    receive_rows: list[int]  # from each rank


class DispatchedTokens:
    """Implements `ExpertExchange`. All ranks of the stage step together; one without tokens sends none."""

    leaves_parts = False

    def __init__(self, copies: ExpertCopies, rows: ExpertRows, *, stage: Communicator, slices: TokenSlices) -> None:
        """Takes all parts.

        Args:
            copies: of the layer; part p of the experts is rank p of the stage.
            rows: buffers for what comes here.
            stage: ranks that have experts.
            slices: of tokens that several ranks of the stage have.
        """
        self._copies = copies
        self._rows = rows
        self._stage = stage
        self._slices = slices
        self._sent: _Sent | None = None

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
        operations.on_host(lambda: self._send(x, routes, step), step=step)
        operations.experts(rows.delta, rows.x, rows.routes, experts, activation=activation, step=step)
        operations.on_host(lambda: self._bring_back(delta, step), step=step)

    def _send(self, x: Tensor, routes: Routes, step: StepBuffers) -> None:
        own = self._slices.own(int(step.header[StepCount.TOKENS]))
        expert_ids = routes.expert_ids[own]
        parts = self._copies.parts(expert_ids, step.positions[own])
        ranks = torch.arange(self._stage.place.num_ranks, device=parts.device)
        destinations, tokens = (parts == ranks[:, None, None]).any(-1).nonzero(as_tuple=True)
        is_there = parts[tokens] == destinations[:, None]
        send_rows = torch.bincount(destinations, minlength=len(ranks))
        receive_rows = torch.empty_like(send_rows)
        each = [1] * len(ranks)
        self._stage.all_to_all(send_rows, receive_rows, send_rows=each, receive_rows=each)
        self._sent = _Sent(tokens, send_rows.tolist(), receive_rows.tolist())
        num_rows = sum(self._sent.receive_rows)
        received = self._rows
        self._exchange(x[own][tokens], received.x[:num_rows])
        self._exchange(routes.weights[own][tokens], received.routes.weights[:num_rows])
        self._exchange(expert_ids[tokens].where(is_there, NOBODY), received.routes.expert_ids[:num_rows])
        received.routes.num_rows.fill_(num_rows)

    def _exchange(self, values: Tensor, received: Tensor) -> None:
        assert self._sent is not None, "how many rows go where is known"
        self._stage.all_to_all(values, received, send_rows=self._sent.send_rows, receive_rows=self._sent.receive_rows)

    def _bring_back(self, delta: Tensor, step: StepBuffers) -> None:
        """Sums what a token's ranks give, in their order: the bits of a token depend on nothing beside it."""
        assert self._sent is not None, "rows come back after they went"
        sent, self._sent = self._sent, None
        returned = delta.new_empty((len(sent.tokens), delta.shape[1]))
        self._stage.all_to_all(
            self._rows.delta[: sum(sent.receive_rows)],
            returned,
            send_rows=sent.receive_rows,
            receive_rows=sent.send_rows,
        )
        rows = delta[: int(step.header[StepCount.TOKENS])]
        own = rows[self._slices.own(len(rows))]
        own.zero_()
        by_rank = zip(torch.split(sent.tokens, sent.send_rows), torch.split(returned, sent.send_rows), strict=True)
        for tokens, part in by_rank:
            own[tokens] += part  # no token is twice in one rank's
        self._slices.join(rows)
