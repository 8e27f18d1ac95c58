"""ggml's blocks of 32 weights to float32, vectorised. The layouts are those of the block structs (ggml-common.h).

    Q8_0   | scale f16 | 32 × int8 |                                      weight = scale · q
    Q4_0   | scale f16 | 16 bytes of two nibbles |                        weight = scale · (q - 8)
    Q4_1   | scale f16 | min f16 | 16 bytes of two nibbles |              weight = scale · q + min
    Q5_0   | scale f16 | 32 fifth bits | 16 bytes of two nibbles |        weight = scale · (q - 16)
    Q5_1   | scale f16 | min f16 | 32 fifth bits | 16 bytes of nibbles |  weight = scale · q + min

Low nibbles are weights 0 … 15 of a block, high nibbles 16 … 31; bit i of the fifth bits belongs to weight i.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]  # [num_blocks, bytes of a block]


def read_q8_0(blocks: Bytes) -> Floats:
    """[num_blocks, 32]"""
    return half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def read_q4_0(blocks: Bytes) -> Floats:
    """[num_blocks, 32]"""
    return half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - np.float32(8))


def read_q4_1(blocks: Bytes) -> Floats:
    """[num_blocks, 32]"""
    return half(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + half(blocks, 2)


def read_q5_0(blocks: Bytes) -> Floats:
    """[num_blocks, 32]"""
    return half(blocks, 0) * (_fives(blocks[:, 2:]).astype(np.float32) - np.float32(16))


def read_q5_1(blocks: Bytes) -> Floats:
    """[num_blocks, 32]"""
    return half(blocks, 0) * _fives(blocks[:, 4:]).astype(np.float32) + half(blocks, 2)


def half(blocks: Bytes, offset: int) -> Floats:
    """The float16 at a byte offset of each block, [num_blocks, 1]."""
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2").astype(np.float32)


def _nibbles(pairs: Bytes) -> Bytes:
    """0 … 15, [num_blocks, 32] from [num_blocks, 16]."""
    return np.concatenate([pairs & 0x0F, pairs >> 4], axis=1)


def _fives(quants: Bytes) -> Bytes:
    """0 … 31, [num_blocks, 32] from 4 bytes of fifth bits and 16 of nibbles."""
    fifth_bits = np.unpackbits(quants[:, :4], axis=1, bitorder="little")
    return _nibbles(quants[:, 4:]) | fifth_bits << np.uint8(4)
