"""Which part computes an expert for a token, for all routes of a step at once."""

import torch
from torch import Tensor

from shardline_workers.parallel.expert_placement import ExpertPlacement

NOBODY = -1  # as an expert's id: no rank has such an expert


class ExpertCopies:
    """The placement of one layer as tensors."""

    def __init__(self, placement: ExpertPlacement, *, device: torch.device) -> None:
        num_experts = 1 + max(expert for experts in placement.part_experts for expert in experts)
        parts = [placement.parts_of(expert) for expert in range(num_experts)]
        most = max(map(len, parts))
        padded = [[*having, *[0] * (most - len(having))] for having in parts]
        self._parts = torch.tensor(padded, device=device)  # [num_experts, most copies] int64
        self._num_copies = torch.tensor([len(having) for having in parts], device=device)  # [num_experts] int64

    def parts(self, expert_ids: Tensor, positions: Tensor) -> Tensor:
        """As `ExpertPlacement.part_for` says it.

        Args:
            expert_ids: [num_rows, num_active].
            positions: [num_rows] int64, of tokens in their sequences.

        Returns:
            [num_rows, num_active] int64.
        """
        ids = expert_ids.long()
        return self._parts[ids, positions[:, None] % self._num_copies[ids]]
