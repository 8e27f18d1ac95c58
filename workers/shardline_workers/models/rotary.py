"""Rotary position embedding (Su et al. 2021), stretched or not.

Angles are computed in float32 whatever the model's dtype, as they were in training: a table in float64 would be more
exact and another model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.operands import RotaryPairing, RotaryTable
from shardline_workers.models.rotary_scaling import RotaryScaling, YarnScaling, refuse_unless_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class RotarySpec:
    """How the heads of a model turn."""

    theta: float
    rotary_dim: int  # even, at most the head's size
    pairing: RotaryPairing
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        refuse_unless_positive(theta=self.theta)
        if isinstance(self.scaling, YarnScaling) and self.theta <= 1:
            raise ValueError(f"theta of the rotary embedding is {self.theta}; YaRN needs one above 1")


def rotary_table(
    spec: RotarySpec, max_len: int, *, dtype: torch.dtype, device: torch.device, factors: Tensor | None = None
) -> RotaryTable:
    """Angles of positions 0 … max_len - 1.

    Args:
        spec: how the heads turn.
        max_len: positions.
        dtype: of the table.
        device: of the table.
        factors: [rotary_dim / 2], divides the frequencies; from a GGUF file, in place of a scaling.
    """
    frequencies, magnitude = _frequencies(spec), 1.0
    if spec.scaling is not None:
        frequencies, magnitude = spec.scaling.scaled(frequencies, theta=spec.theta), spec.scaling.magnitude
    if factors is not None:
        frequencies = frequencies / factors.to(dtype=torch.float32, device="cpu")
    angles = torch.arange(max_len, dtype=torch.float32)[:, None] * frequencies
    return RotaryTable(
        cosines=(angles.cos() * magnitude).to(dtype=dtype, device=device),
        sines=(angles.sin() * magnitude).to(dtype=dtype, device=device),
        pairing=spec.pairing,
    )


def _frequencies(spec: RotarySpec) -> Tensor:
    exponents = torch.arange(0, spec.rotary_dim, 2, dtype=torch.float32) / spec.rotary_dim
    frequencies: Tensor = 1.0 / (spec.theta**exponents)
    return frequencies
