"""Experts that lie in a checkpoint as one tensor a layer, read as one matrix each."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.stored_numbers import Weights
from shardline_workers.weights.tensor_names import NameTable
from shardline_workers.weights.tensor_source import TensorSource

_NUM_STACK_DIMENSIONS = 3


class UnstackedSource:
    """Implements `TensorSource`: a checkpoint whose stacks [num_experts, rows, columns] are taken apart.

    Matrix gate of expert 5 in the stack NAME is called NAME[5].gate. A stack that is none, by its dimensions, stays as
    it is, and is refused under its own name.
    """

    def __init__(self, source: TensorSource, names: NameTable) -> None:
        self._source = source
        self._names = names
        self._matrices = {
            name: matrix
            for stack in source.shapes
            if (parts := names.stack_parts(stack)) is not None
            for name, matrix in self._taken_apart(stack, parts)
        }
        stacks = {stack for stack, _, _ in self._matrices.values()}
        self.shapes: Mapping[str, tuple[int, ...]] = {
            **{name: shape for name, shape in source.shapes.items() if name not in stacks},
            **{name: self._shape(stack, rows) for name, (stack, _, rows) in self._matrices.items()},
        }

    @property
    def path(self) -> Path:
        """See `TensorSource.path`."""
        return self._source.path

    def stored(self, name: str) -> StoredTensor:
        """See `TensorSource.stored`."""
        if name not in self._matrices:
            return self._source.stored(name)
        stack, expert, rows = self._matrices[name]
        return self._source.stored(stack).entry(expert).rows(rows)

    def numbers(self, name: str, stored: StoredTensor) -> Weights:
        """See `TensorSource.numbers`."""
        return self._source.numbers(self._matrices[name][0] if name in self._matrices else name, stored)

    def _taken_apart(self, stack: str, parts: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, int, range]]]:
        """Each matrix's name, with its stack, its expert, and its rows of the expert's matrix."""
        shape = self._source.shapes[stack]
        if len(shape) != _NUM_STACK_DIMENSIONS or shape[1] % len(parts):
            return
        num_rows = shape[1] // len(parts)
        for expert in range(shape[0]):
            for number, part in enumerate(parts):
                rows = range(number * num_rows, (number + 1) * num_rows)
                yield f"{stack}[{expert}].{part}", (stack, expert, rows)

    def _shape(self, stack: str, rows: range) -> tuple[int, ...]:
        return (len(rows), self._source.shapes[stack][2])
