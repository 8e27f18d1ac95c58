"""Blocks of any of ggml's quantised types: any bits are quants, scales are numbers."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES

# Where a block's float16 numbers lie, in bytes.
HALVES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "Q8_0": (0,),
        "Q4_0": (0,),
        "Q4_1": (0, 2),
        "Q5_0": (0,),
        "Q5_1": (0, 2),
        "Q2_K": (80, 82),
        "Q3_K": (108,),
        "Q4_K": (0, 2),
        "Q5_K": (0, 2),
        "Q6_K": (208,),
    }
)


def any_blocks(kind: GGMLQuantizationType, num_blocks: int, *, seed: int = 5, scale: float = 1.0) -> NDArray[np.uint8]:
    """[num_blocks, bytes of a block]; the float16 numbers are normal, of both signs, about as large as `scale`."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (num_blocks, GGML_TYPES[kind.value].block_bytes), dtype=np.uint8)
    for offset in HALVES[kind.name]:
        halves = generator.normal(scale=scale, size=num_blocks).astype("<f2")
        blocks[:, offset : offset + 2] = halves.view(np.uint8).reshape(num_blocks, 2)
    return blocks
