"""Counter-based noise: a number for each (seed, sequence, position, token id), in any order, the same on every device.

The mixing function is splitmix64's (Steele, Lea, Flood 2014), in 64-bit integers that wrap around. Keys are mixed on
the host, where Python's integers are exact; tokens are mixed by int64 tensor operations.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_UNIFORM_BITS = 52  # k + 1/2 with k < 2^52 is exact in float64, so that neither 0 nor 1 comes out


def noise_key(*, seed: int, sequence: int, position: int) -> int:
    """Key of one choice as a signed 64-bit integer; seed 0 … 2^64 - 1, the others 0 … 2^63 - 1."""
    stream = noise_stream(seed=seed, sequence=sequence)
    return _signed(_mix_integer(((stream ^ position) + _GOLDEN) & _MASK))


def noise_stream(*, seed: int, sequence: int) -> int:
    """What the keys of all positions of a sequence have in common, 0 … 2^64 - 1; see `position_keys`."""
    key = 0
    for part in (seed, sequence):
        key = _mix_integer(((key ^ part) + _GOLDEN) & _MASK)
    return key


def position_keys(streams: Integers, positions: Integers) -> Integers:
    """`noise_key` of many choices at once, [rows] uint64, from their streams and positions, [rows] uint64 each."""
    mixed: Integers = (streams ^ positions) + np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    return mixed ^ (mixed >> np.uint64(31))


def uniform_noise(keys: Tensor, num_tokens: int) -> Tensor:
    """[rows, num_tokens] float64, each strictly between 0 and 1, for keys [rows] int64."""
    counters = torch.arange(1, num_tokens + 1, device=keys.device, dtype=torch.int64) * _signed(_GOLDEN)
    mixed = _mix_tensor(keys[:, None] + counters[None, :])
    bits = _shift_right(mixed, 64 - _UNIFORM_BITS)
    return (bits.to(torch.float64) + 0.5) * 2.0**-_UNIFORM_BITS


def gumbel_noise(keys: Tensor, num_tokens: int) -> Tensor:
    """[rows, num_tokens] float64 of the standard Gumbel law: argmax(log p + noise) is a draw from p."""
    return uniform_noise(keys, num_tokens).log_().neg_().log_().neg_()


def _mix_integer(value: int) -> int:
    value = (value ^ (value >> 30)) * _FIRST & _MASK
    value = (value ^ (value >> 27)) * _SECOND & _MASK
    return value ^ (value >> 31)


def _mix_tensor(values: Tensor) -> Tensor:
    values = (values ^ _shift_right(values, 30)) * _signed(_FIRST)
    values = (values ^ _shift_right(values, 27)) * _signed(_SECOND)
    return values ^ _shift_right(values, 31)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    # torch's shift of int64 drags the sign along: mask it away.
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
