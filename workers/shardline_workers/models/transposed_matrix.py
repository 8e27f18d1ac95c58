"""A stored matrix with its inputs and outputs exchanged."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.kernels.operands import MatrixSource


@dataclass(frozen=True, slots=True)
class TransposedMatrix:
    """Implements `MatrixSource`. What was quantised along the other inputs becomes plain numbers."""

    source: MatrixSource

    @property
    def stored(self) -> StoredTensor:
        """See `MatrixSource.stored`: in memory of its own, as F32."""
        numbers = self.dequantised().to(device="cpu", dtype=torch.float32).numpy()
        return StoredTensor("F32", numbers.shape, numbers.data.cast("B"))

    def dequantised(self) -> Tensor:
        """See `MatrixSource.dequantised`."""
        return self.source.dequantised().t().contiguous()
