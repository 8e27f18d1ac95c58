"""From ggml's packed types to float32, chunk by chunk. How each type packs: block_quants and k_quants."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.weights import block_quants, k_quants
from shardline_workers.weights.block_quants import Bytes, Floats

_CHUNK_WEIGHTS = 1 << 18  # intermediate arrays stay within a few MiB, and within the cache


class UnsupportedGgmlTypeError(ValueError):
    """A tensor is stored in a type that cannot be read yet."""


def dequantise(packed: memoryview, ggml_type: int, shape: tuple[int, ...]) -> Floats:
    """A tensor's weights as a new float32 array of `shape`, row-major. Needs little memory beside the result.

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
    weights = np.empty((math.prod(shape) // kind.block_weights, kind.block_weights), np.float32)
    step = _CHUNK_WEIGHTS // kind.block_weights
    for start in range(0, len(blocks), step):
        weights[start : start + step] = reader(blocks[start : start + step])
    return weights.reshape(shape)


def dequantised_types() -> tuple[str, ...]:
    """Names of the types that `dequantise` reads."""
    return tuple(_READERS)


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> Floats:
    """Exact: a bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_f32(blocks: Bytes) -> Floats:
    return blocks.view("<f4")


def _read_f16(blocks: Bytes) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def _read_bf16(blocks: Bytes) -> Floats:
    return bfloat16_to_float32(blocks.view("<u2"))


_READERS: Mapping[str, Callable[[Bytes], Floats]] = MappingProxyType(
    {
        "F32": _read_f32,
        "F16": _read_f16,
        "BF16": _read_bf16,
        "Q8_0": block_quants.read_q8_0,
        "Q4_0": block_quants.read_q4_0,
        "Q4_1": block_quants.read_q4_1,
        "Q5_0": block_quants.read_q5_0,
        "Q5_1": block_quants.read_q5_1,
        "Q2_K": k_quants.read_q2_k,
        "Q3_K": k_quants.read_q3_k,
        "Q4_K": k_quants.read_q4_k,
        "Q5_K": k_quants.read_q5_k,
        "Q6_K": k_quants.read_q6_k,
    }
)
