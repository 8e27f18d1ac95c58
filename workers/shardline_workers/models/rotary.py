"""Rotary position embedding (Su et al. 2021) and the two ways to stretch it that Llama models use.

Angles are computed in float32 whatever the model's dtype, as they were in training: a table in float64 would be more
exact and another model.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.operands import RotaryPairing, RotaryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearScaling:
    """All positions divided by a factor."""

    factor: float

    def __post_init__(self) -> None:
        _refuse_unless_positive(factor=self.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's: slow dimensions divided by `factor`, fast ones left alone, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_len: int  # tokens of context before stretching

    def __post_init__(self) -> None:
        _refuse_unless_positive(
            factor=self.factor, low_freq_factor=self.low_freq_factor, original_max_len=self.original_max_len
        )
        if not self.high_freq_factor > self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor}; it must be more than low_freq_factor, which is"
                f" {self.low_freq_factor}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RotarySpec:
    """How the heads of a model turn."""

    theta: float
    rotary_dim: int  # even, at most the head's size
    pairing: RotaryPairing
    scaling: LinearScaling | Llama3Scaling | None = None

    def __post_init__(self) -> None:
        _refuse_unless_positive(theta=self.theta)


def _refuse_unless_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} of the rotary embedding is {number}; it must be a positive number")


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
    frequencies = _scaled(_frequencies(spec), spec.scaling)
    if factors is not None:
        frequencies = frequencies / factors.to(dtype=torch.float32, device="cpu")
    angles = torch.arange(max_len, dtype=torch.float32)[:, None] * frequencies
    return RotaryTable(
        cosines=angles.cos().to(dtype=dtype, device=device),
        sines=angles.sin().to(dtype=dtype, device=device),
        pairing=spec.pairing,
    )


def _frequencies(spec: RotarySpec) -> Tensor:
    exponents = torch.arange(0, spec.rotary_dim, 2, dtype=torch.float32) / spec.rotary_dim
    frequencies: Tensor = 1.0 / (spec.theta**exponents)
    return frequencies


def _scaled(frequencies: Tensor, scaling: LinearScaling | Llama3Scaling | None) -> Tensor:
    match scaling:
        case None:
            return frequencies
        case LinearScaling():
            return frequencies / scaling.factor
        case Llama3Scaling():
            return _llama3_scaled(frequencies, scaling)


def _llama3_scaled(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    original_max_len = float(scaling.original_max_len)
    wavelengths = 2 * math.pi / frequencies
    longest_fast = original_max_len / scaling.high_freq_factor
    shortest_slow = original_max_len / scaling.low_freq_factor
    share_kept = (original_max_len / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - share_kept) * frequencies / scaling.factor + share_kept * frequencies
    stretched = torch.where(wavelengths > shortest_slow, frequencies / scaling.factor, blended)
    return torch.where(wavelengths < longest_fast, frequencies, stretched)
