"""Layers that see the last tokens only, between layers that see everything."""

from dataclasses import dataclass

from shardline_workers.kernels.operands import check_window
from shardline_workers.models.rotary import RotarySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedLayers:
    """Which layers they are, and what is different there. Checked at birth."""

    layers: frozenset[int]
    window: int  # tokens that a token sees, itself included
    rotary: RotarySpec

    def __post_init__(self) -> None:
        check_window(self.window)


def all_but_every(period: int, num_layers: int) -> frozenset[int]:
    """Layers that are windowed where each `period`-th one, counted from 1, sees everything.

    Raises:
        ValueError: the period makes no sense.
    """
    if period < 1:
        raise ValueError(f"every {period}th layer sees all tokens; the period must be at least 1")
    return frozenset(number for number in range(num_layers) if (number + 1) % period)
