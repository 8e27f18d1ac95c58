"""From ggml's packed blocks to float32, vectorised. The layouts are those of ggml's block structs (ggml-common.h).

    Q8_0   | scale f16 | 32 × int8 |                        weight = scale · q
    Q4_0   | scale f16 | 16 bytes of two nibbles |          weight = scale · (q - 8)
    Q4_1   | scale f16 | min f16 | 16 bytes of two nibbles | weight = scale · q + min

Low nibbles are weights 0 … 15 of a block, high nibbles 16 … 31.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class UnsupportedGgmlTypeError(ValueError):
    """A tensor is stored in a type that cannot be read yet."""


def dequantise(packed: memoryview, ggml_type: int, shape: tuple[int, ...]) -> Floats:
    """A tensor's weights as a new float32 array of `shape`, row-major.

    Raises:
        UnsupportedGgmlTypeError: the type is none of those that can be read; the text names them.
    """
    kind = GGML_TYPES[ggml_type]
    reader = _READERS.get(kind.name)
    if reader is None:
        raise UnsupportedGgmlTypeError(
            f"GGUF type {kind.name} cannot be read yet; take a file whose tensors are {', '.join(_READERS)}"
        )
    blocks = np.frombuffer(packed, dtype=np.uint8).reshape(-1, kind.block_bytes)
    return reader(blocks).reshape(shape)


def readable_types() -> tuple[str, ...]:
    """Names of the types that `dequantise` reads."""
    return tuple(_READERS)


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> Floats:
    """Exact: a bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_f32(blocks: Bytes) -> Floats:
    return blocks.view("<f4").astype(np.float32)


def _read_f16(blocks: Bytes) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def _read_bf16(blocks: Bytes) -> Floats:
    return bfloat16_to_float32(blocks.view("<u2"))


def _read_q8_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _read_q4_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]) - np.float32(8))


def _read_q4_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _half(blocks: Bytes, offset: int) -> Floats:
    """The float16 at a byte offset of each block, [num_blocks, 1]."""
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2").astype(np.float32)


def _nibbles(pairs: Bytes) -> Floats:
    """0 … 15, [num_blocks, 32] from [num_blocks, 16]."""
    return np.concatenate([pairs & 0x0F, pairs >> 4], axis=1).astype(np.float32)


_READERS: Mapping[str, Callable[[Bytes], Floats]] = MappingProxyType(
    {
        "F32": _read_f32,
        "F16": _read_f16,
        "BF16": _read_bf16,
        "Q8_0": _read_q8_0,
        "Q4_0": _read_q4_0,
        "Q4_1": _read_q4_1,
    }
)
