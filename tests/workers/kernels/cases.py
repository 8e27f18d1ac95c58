"""Implementations of every operation side by side, and steps for them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import LinearInput, PackedLinear
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers, StepCount
from tests.workers.kernels.matrices import FloatMatrix

MAX_TOKENS = 6
MAX_SEQS = 4
UNTOUCHED = -77.0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One implementation, and how far it may be from exact arithmetic."""

    kernels: Kernels
    exact: float  # where every input is exact in its formats: only sums round
    rounded: float  # where something was rounded to bfloat16 on the way

    def run(self, calls: Callable[[Operations], None]) -> None:
        """Makes the calls once."""
        self.kernels.record(calls).run(1)

    def floats(self, values: Tensor) -> Tensor:
        """Numbers in the dtype of its buffers."""
        return values.to(self.kernels.formats.activations, copy=True)

    def untouched(self, *shape: int) -> Tensor:
        return torch.full(shape, UNTOUCHED, dtype=self.kernels.formats.activations)

    def packed(self, weight: Tensor) -> PackedLinear:
        return self.kernels.pack_linear([FloatMatrix(weight)])

    def linear_input(self, num_inputs: int, *, rows: int = MAX_TOKENS) -> tuple[LinearInput, PackedLinear]:
        """A buffer and a reader for it that changes nothing."""
        identity = self.packed(torch.eye(num_inputs, dtype=torch.float64))
        return self.kernels.allocate_linear_input([identity], max_rows=rows), identity


def step(*, tokens: int = 3, sampled: int = 2) -> StepBuffers:
    buffers = StepBuffers.allocate(
        max_tokens=MAX_TOKENS, max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_blocks=4, device=CPU
    )
    buffers.header[StepCount.TOKENS] = tokens
    buffers.header[StepCount.SEQUENCES] = 1
    buffers.header[StepCount.SAMPLED] = sampled
    buffers.query_starts[1] = tokens
    buffers.context_lengths[0] = tokens
    buffers.positions[:tokens] = torch.arange(tokens)
    buffers.cache_places[:tokens] = torch.arange(tokens)
    return buffers


def assert_rows(out: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(out[: len(expected)].double(), expected, rtol=tolerance, atol=tolerance)
    assert (out[len(expected) :] == UNTOUCHED).all(), "rows beyond the header's count were written"
