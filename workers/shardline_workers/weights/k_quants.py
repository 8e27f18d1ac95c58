"""ggml's K-quants, blocks of 256 weights, to float32, vectorised. The layouts are those of ggml-common.h.

    Q2_K   | 16 × (scale, min: 4 bits) | 64 bytes of four 2-bit quants | d f16 | dmin f16 |
    Q3_K   | 32 bytes of third bits | 64 bytes of four 2-bit quants | 16 scales of 6 bits | d f16 |
    Q4_K   | d f16 | dmin f16 | 8 × (scale, min: 6 bits) | 128 bytes of two nibbles |
    Q5_K   | d f16 | dmin f16 | 8 × (scale, min: 6 bits) | 32 bytes of fifth bits | 128 bytes of two nibbles |
    Q6_K   | 128 bytes of two nibbles | 64 bytes of four upper 2 bits | 16 × int8 scale | d f16 |

    Q2_K, Q4_K, Q5_K   weight = d · scale · q - dmin · min, by groups of 16, 32, 32 weights
    Q3_K, Q6_K         weight = d · (scale - 32) · (q - 4), d · scale · (q - 32), by groups of 16 weights

Quants of several bits a byte lie *across* the block: a run of bytes holds in its lowest bits the quants of as many
neighbouring weights, in the next bits those of the weights behind them, and so on.
"""

import numpy as np

from shardline_workers.weights.block_quants import Bytes, Floats, half


def read_q2_k(blocks: Bytes) -> Floats:
    """[num_blocks, 256]"""
    scales, quants = blocks[:, :16], _across(blocks[:, 16:80], bits=2, run=32)
    return _scaled(
        quants,
        half(blocks, 80) * _floats(scales & np.uint8(15)),
        minima=half(blocks, 82) * _floats(scales >> np.uint8(4)),
    )


def read_q3_k(blocks: Bytes) -> Floats:
    """[num_blocks, 256]"""
    third_bits = _across(blocks[:, :32], bits=1, run=32)
    quants = (_across(blocks[:, 32:96], bits=2, run=32) | third_bits << 2).astype(np.int8) - 4
    return _scaled(quants, half(blocks, 108) * (_floats(_q3_k_scales(blocks[:, 96:108])) - np.float32(32)))


def read_q4_k(blocks: Bytes) -> Floats:
    """[num_blocks, 256]"""
    return _scaled(_across(blocks[:, 16:], bits=4, run=32), *_scales_and_minima(blocks))


def read_q5_k(blocks: Bytes) -> Floats:
    """[num_blocks, 256]"""
    fifth_bits = _across(blocks[:, 16:48], bits=1, run=32)
    quants = _across(blocks[:, 48:], bits=4, run=32) | fifth_bits << 4
    return _scaled(quants, *_scales_and_minima(blocks))


def read_q6_k(blocks: Bytes) -> Floats:
    """[num_blocks, 256]"""
    upper = _across(blocks[:, 128:192], bits=2, run=32)
    quants = (_across(blocks[:, :128], bits=4, run=64) | upper << 4).astype(np.int8) - 32
    return _scaled(quants, half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32))


def _across(packed: Bytes, *, bits: int, run: int) -> Bytes:
    """Quants of 8 / bits to a byte, in the order of their weights: runs of bytes, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    spread = packed.reshape(len(packed), -1, 1, run) >> shifts & np.uint8((1 << bits) - 1)
    return spread.reshape(len(packed), -1)


def _scaled(quants: Bytes | np.ndarray, scales: Floats, minima: Floats | None = None) -> Floats:
    """scale · q - min, with one scale (and one minimum) to each group of a block."""
    groups = quants.reshape(*scales.shape, -1).astype(np.float32) * scales[:, :, None]
    if minima is not None:
        groups -= minima[:, :, None]
    return groups.reshape(len(quants), -1)


def _scales_and_minima(blocks: Bytes) -> tuple[Floats, Floats]:
    """Of Q4_K and Q5_K, [num_blocks, 8] each. Groups 0 … 3 have six bits of a byte; the two bits above them are the
    upper ones of groups 4 … 7, whose lower four are nibbles of the last four bytes."""
    low, high, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([low & 63, rest & 15 | low >> 2 & 48], axis=1)
    minima = np.concatenate([high & 63, rest >> 4 | high >> 2 & 48], axis=1)
    return half(blocks, 0) * _floats(scales), half(blocks, 2) * _floats(minima)


def _q3_k_scales(packed: Bytes) -> Bytes:
    """0 … 63, [num_blocks, 16]: lower four bits are nibbles of 8 bytes, upper two lie in the 4 bytes behind them."""
    return _across(packed[:, :8], bits=4, run=8) | _across(packed[:, 8:], bits=2, run=4) << np.uint8(4)


def _floats(numbers: Bytes) -> Floats:
    return numbers.astype(np.float32)
