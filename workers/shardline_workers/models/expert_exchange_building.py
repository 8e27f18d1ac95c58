"""Which way of exchanging tokens and what experts give a rank takes, by its plan.

ep = 1, or one data-parallel group     all ranks of a group have the same tokens      SameTokens
each expert on one rank                every token goes to its experts                DispatchedTokens
each expert on several ranks           all tokens go to all ranks                     GatheredTokens
"""

import torch

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.models.expert_copies import ExpertCopies
from shardline_workers.models.expert_dispatch import DispatchedTokens
from shardline_workers.models.expert_exchange import ExpertExchange, SameTokens
from shardline_workers.models.expert_gathering import GatheredTokens
from shardline_workers.models.expert_rows import ExpertRows
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.model_share import ModelShare
from shardline_workers.models.token_slices import TokenSlices


class ExchangeBuilder:
    """Makes them, with buffers that all layers of a rank share."""

    def __init__(self, share: ModelShare, groups: RankGroups, *, rows: ExpertRows | None, device: torch.device) -> None:
        """Takes what `exchange_rows` says there must be in `rows`; None: nothing."""
        self._share, self._groups = share, groups
        self._rows = rows
        self._device = device

    def exchange(self, layer: int) -> ExpertExchange:
        """Of one of the rank's layers, which has experts."""
        placement, position = self._share.placements[layer], self._share.position
        copies = ExpertCopies(placement, device=self._device)
        if self._rows is None:
            return SameTokens(position.expert_part, copies if placement.has_copies else None)
        stage, slices = self._groups.stage, TokenSlices(self._groups.tensor)
        if position.plan.expert_tp == 1:
            return DispatchedTokens(copies, self._rows, stage=stage, slices=slices)
        return GatheredTokens(copies, self._rows, part=position.expert_part, stage=stage, slices=slices)


def exchange_rows(
    share: ModelShare,
    shape: ExpertsShape,
    *,
    max_tokens: int,
    hidden_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> ExpertRows | None:
    """Room for the tokens of all groups; None where a rank has none but its own."""
    plan = share.position.plan
    if plan.ep == 1 or plan.dp == 1:
        return None
    slice_tokens = -(-max_tokens // plan.tp)
    return ExpertRows.allocate(
        max_rows=plan.tp * plan.dp * slice_tokens,
        hidden_size=hidden_size,
        num_active=shape.rule.num_active,
        dtype=dtype,
        device=device,
    )
