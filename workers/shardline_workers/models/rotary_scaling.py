"""Ways to stretch a rotary embedding beyond the context that a model was trained on."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class RotaryScaling(Protocol):
    """What is made of the plain frequencies. Hashable, and checked at birth."""

    @property
    def magnitude(self) -> float:
        """Factor of cosines and sines."""
        ...

    def scaled(self, frequencies: Tensor, *, theta: float) -> Tensor:
        """[rotary_dim / 2] float32, from the plain ones of base `theta`, fastest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearScaling:
    """All positions divided by a factor."""

    factor: float

    def __post_init__(self) -> None:
        refuse_unless_positive(factor=self.factor)

    @property
    def magnitude(self) -> float:
        """See `RotaryScaling.magnitude`."""
        return 1.0

    def scaled(self, frequencies: Tensor, *, theta: float) -> Tensor:
        """See `RotaryScaling.scaled`."""
        return frequencies / self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's: slow dimensions divided by `factor`, fast ones left alone, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_len: int  # tokens of context before stretching

    def __post_init__(self) -> None:
        refuse_unless_positive(
            factor=self.factor, low_freq_factor=self.low_freq_factor, original_max_len=self.original_max_len
        )
        if not self.high_freq_factor > self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor}; it must be more than low_freq_factor, which is"
                f" {self.low_freq_factor}"
            )

    @property
    def magnitude(self) -> float:
        """See `RotaryScaling.magnitude`."""
        return 1.0

    def scaled(self, frequencies: Tensor, *, theta: float) -> Tensor:
        """See `RotaryScaling.scaled`."""
        original_max_len = float(self.original_max_len)
        wavelengths = 2 * math.pi / frequencies
        longest_fast = original_max_len / self.high_freq_factor
        shortest_slow = original_max_len / self.low_freq_factor
        share_kept = (original_max_len / wavelengths - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        blended = (1 - share_kept) * frequencies / self.factor + share_kept * frequencies
        stretched = torch.where(wavelengths > shortest_slow, frequencies / self.factor, blended)
        return torch.where(wavelengths < longest_fast, frequencies, stretched)


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): slow dimensions divided by `factor`, fast ones left alone, a ramp between them."""

    factor: float
    original_max_len: int  # tokens of context before stretching
    magnitude: float  # factor of cosines and sines, see `yarn_magnitude`
    fast_turns: float = 32.0  # dimensions that turn so often within the original context are left alone
    slow_turns: float = 1.0  # those that turn no more often are divided
    whole_bounds: bool = True  # the ramp begins and ends at whole dimensions

    def __post_init__(self) -> None:
        refuse_unless_positive(
            factor=self.factor,
            original_max_len=self.original_max_len,
            magnitude=self.magnitude,
            slow_turns=self.slow_turns,
        )
        if not self.slow_turns < self.fast_turns < math.inf:
            raise ValueError(
                f"beta_fast of the rotary embedding is {self.fast_turns}; it must be more than beta_slow, which is"
                f" {self.slow_turns}"
            )

    def scaled(self, frequencies: Tensor, *, theta: float) -> Tensor:
        """See `RotaryScaling.scaled`."""
        rotary_dim = 2 * len(frequencies)
        first, last = self._ramp(rotary_dim, theta)
        share_kept = 1 - ((torch.arange(len(frequencies), dtype=torch.float32) - first) / (last - first)).clamp(0, 1)
        # Divided before the reciprocal is taken, as the models' own code does it: both ways round differently.
        periods = theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)
        return 1.0 / (self.factor * periods) * (1 - share_kept) + frequencies * share_kept

    def _ramp(self, rotary_dim: int, theta: float) -> tuple[float, float]:
        first, last = (self._pair_of(turns, rotary_dim, theta) for turns in (self.fast_turns, self.slow_turns))
        if self.whole_bounds:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, rotary_dim - 1)
        return first, last if last != first else last + 0.001

    def _pair_of(self, turns: float, rotary_dim: int, theta: float) -> float:
        """The pair of dimensions, not necessarily whole, that turns so often within the original context."""
        return rotary_dim * math.log(self.original_max_len / (turns * 2 * math.pi)) / (2 * math.log(theta))


def yarn_magnitude(factor: float, share: float = 1.0) -> float:
    """What YaRN's authors found to keep attention as sharp as before: 0.1 · share · ln(factor) + 1."""
    return 0.1 * share * math.log(factor) + 1 if factor > 1 else 1.0


def refuse_unless_positive(**numbers: float) -> None:
    """Raises ValueError for the first that is not a positive finite number, by its name."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} of the rotary embedding is {number}; it must be a positive number")
