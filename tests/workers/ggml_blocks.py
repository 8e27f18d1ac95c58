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


def model_blocks(kind: GGMLQuantizationType, rows: int, columns: int, *, std: float, seed: int) -> NDArray[np.uint8]:
    """[rows, bytes of a row] of weights as a model has them: about normal, of mean 0 and a deviation near `std`. For
    K-quants, which the gguf package reads but does not write."""
    generator = np.random.default_rng(seed)
    per_row = columns // GGML_TYPES[kind.value].block_weights
    blocks = generator.integers(0, 256, (rows * per_row, GGML_TYPES[kind.value].block_bytes), dtype=np.uint8)
    scale, *minimum = HALVES[kind.name]
    # Of 6-bit scales all but the upper bit is drawn, so that groups differ by no more than a factor of two.
    match kind.name:
        case "Q2_K":
            blocks[:, :16] = (blocks[:, :16] & 7 | 8) * 17  # the minimum's nibble is the scale's
            unit, offset = std / (12 * 1.1), 1.5
        case "Q3_K":
            blocks[:, 96:104] |= 0x88  # scales - 32 lie in 8 … 15 and 24 … 31
            blocks[:, 104:108] = 0xAA
            unit, offset = std / (12 * 2.3), 0.0
        case "Q4_K" | "Q5_K":
            blocks[:, 4:8] = blocks[:, 8:12] = blocks[:, 4:8] & 31 | 32
            blocks[:, 12:16] = (blocks[:, 12:16] & 15) * 17
            quants = 16 if kind.name == "Q4_K" else 32
            unit, offset = std / (32 * quants / 3.5), (quants - 1) / 2
        case "Q6_K":
            blocks[:, 192:208] = blocks[:, 192:208] & 31 | 32
            unit, offset = std / (48 * 18.5), 0.0
        case _:
            raise ValueError(f"{kind.name} is no K-quant")
    blocks[:, scale : scale + 2] = np.array([unit], "<f2").view(np.uint8)
    for at in minimum:
        blocks[:, at : at + 2] = np.array([unit * offset], "<f2").view(np.uint8)
    return blocks.reshape(rows, -1)
