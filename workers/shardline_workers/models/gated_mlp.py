"""The MLP with a gate: one rank's part of its width, from normed rows to the delta."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels.operands import Activation, LinearInput, PackedLinear, Rows
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMlpWeights:
    """A rank's part of one layer's."""

    gate_up: PackedLinear  # hidden → gate, up; made by `pack_gated`
    down: PackedLinear  # width → hidden

    @property
    def reader(self) -> PackedLinear:
        """What reads the normed rows."""
        return self.gate_up

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield from (*self.gate_up.tensors, *self.down.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMlp:
    """Implements `HalfLayer`."""

    activation: Activation
    weights: GatedMlpWeights
    activated: LinearInput  # [max_tokens, width], the same for all layers
    ranks: Communicator  # that have the other parts

    @property
    def reader(self) -> PackedLinear:
        """See `HalfLayer.reader`."""
        return self.weights.gate_up

    @property
    def plain(self) -> Tensor | None:
        """See `HalfLayer.plain`."""
        return None

    def record(self, operations: Operations, normed: LinearInput, delta: Tensor, step: StepBuffers) -> None:
        """See `HalfLayer.record`."""
        weights = self.weights
        operations.gated_linear(
            self.activated, normed, weights.gate_up, activation=self.activation, reader=weights.down, step=step
        )
        operations.linear(delta, self.activated, weights.down, rows=Rows.TOKENS, step=step)
        operations.all_reduce(delta, self.ranks, rows=Rows.TOKENS, step=step)
