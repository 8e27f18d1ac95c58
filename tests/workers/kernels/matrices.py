"""Weights for tests of kernels, as a checkpoint would hold them."""

from dataclasses import dataclass

import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.gguf_types import dequantise
from tests.workers.ggml_blocks import any_blocks


@dataclass(frozen=True)
class FloatMatrix:
    """Implements `MatrixSource` over a matrix of floats."""

    weight: Tensor

    @property
    def stored(self) -> StoredTensor:
        narrow = self.weight.to(torch.float32).numpy().astype("<f4")
        return StoredTensor("F32", tuple(self.weight.shape), memoryview(narrow.tobytes()))

    def dequantised(self) -> Tensor:
        return self.weight


def random(*shape: int, seed: int = 0) -> Tensor:
    """Numbers that bfloat16 holds exactly, so that only the kernels' own rounding shows."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(torch.bfloat16).to(torch.float64)


@dataclass(frozen=True)
class BlockMatrix:
    """Implements `MatrixSource` over ggml's blocks of 32 weights."""

    kind: str
    shape: tuple[int, int]
    blocks: bytes

    @property
    def stored(self) -> StoredTensor:
        return StoredTensor(self.kind, self.shape, memoryview(self.blocks))

    def dequantised(self) -> Tensor:
        number = GGMLQuantizationType[self.kind]
        return torch.from_numpy(dequantise(memoryview(self.blocks), number, self.shape).astype(np.float64))


def random_blocks(kind: str, num_rows: int, num_columns: int, *, seed: int = 0) -> BlockMatrix:
    """A matrix of one of ggml's types: any bits are quants, scales are small numbers of both signs."""
    ggml_type = GGMLQuantizationType[kind]
    num_blocks = num_rows * num_columns // GGML_TYPES[ggml_type].block_weights
    blocks = any_blocks(ggml_type, num_blocks, seed=seed, scale=0.02)
    return BlockMatrix(kind, (num_rows, num_columns), blocks.tobytes())
