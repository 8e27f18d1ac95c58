"""Rows of other ranks' tokens, and what this rank's experts give to them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from shardline_workers.kernels.operands import Routes


@dataclass(frozen=True, slots=True)
class ExpertRows:
    """Buffers at their largest, the same for all layers of a rank."""

    x: Tensor  # [max_rows, hidden], dtype of the activations
    routes: Routes  # of max_rows rows
    delta: Tensor  # [max_rows, hidden], dtype of the activations

    @classmethod
    def allocate(
        cls, *, max_rows: int, hidden_size: int, num_active: int, dtype: torch.dtype, device: torch.device
    ) -> Self:
        """For so many rows."""
        return cls(
            x=torch.zeros((max_rows, hidden_size), dtype=dtype, device=device),
            routes=Routes.allocate(max_rows=max_rows, num_active=num_active, dtype=dtype, device=device),
            delta=torch.zeros((max_rows, hidden_size), dtype=dtype, device=device),
        )
