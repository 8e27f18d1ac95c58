"""Hands out one rank's part of a checkpoint under our names, after it has made sure that all is there in its shape."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.matrix_part import MatrixPart, StackEntry
from shardline_workers.weights.tensor_names import NameTable
from shardline_workers.weights.tensor_source import TensorSource

_MAX_SHOWN = 5  # names in a message


class WeightLoader:
    """One checkpoint, read tensor by tensor: never more than one of them lies in memory in two forms."""

    def __init__(
        self,
        source: TensorSource,
        names: NameTable,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Reads nothing yet.

        Args:
            source: the checkpoint.
            names: what it calls its tensors.
            dtype: of what is asked for as numbers.
            device: of all.
        """
        self._source = source
        self._names = names
        self._ours_to_theirs = {ours: name for name in source.shapes if (ours := names.ours(name)) is not None}
        self.dtype = dtype
        self._device = device
        self.asked_bytes = 0  # of the file: what was handed out, or read, so far

    def has(self, name: str) -> bool:
        """Whether the checkpoint has our tensor."""
        return name in self._ours_to_theirs

    def check(
        self,
        expected: Mapping[str, tuple[int, ...]],
        *,
        unread: frozenset[str] = frozenset(),
        unread_layers: range = range(0),
    ) -> None:
        """Compares the checkpoint with our names and shapes.

        Args:
            expected: shape by our name.
            unread: our names that may be there and are not read.
            unread_layers: of which anything may be there and is not read.

        Raises:
            ModelFileError: a tensor is missing, has another shape, or is there that the model would not use.
        """
        self._refuse_missing(expected)
        self._refuse_misshapen(expected)
        self._refuse_extra(expected, unread, unread_layers)

    def tensor(self, name: str, *, dtype: torch.dtype | None = None) -> Tensor:
        """Our tensor on the loader's device, in `dtype`, or where that is None in the loader's.

        Raises:
            ModelFileError: it is stored in a type that cannot be read.
        """
        return self.numbers(name, self._asked(self._source.stored(self._ours_to_theirs[name])), dtype=dtype)

    def matrix(self, name: str, part: MatrixPart | StackEntry | None = None) -> "LoadableMatrix":
        """A rank's part of our matrix, still in its file, for kernels that pack it in their own way.

        Args:
            name: of the matrix.
            part: that the rank has; None: all.

        Raises:
            ValueError: it cannot be cut there.
        """
        stored = self._source.stored(self._ours_to_theirs[name])
        return LoadableMatrix(self, self._asked(stored if part is None else part.of(stored)), name)

    def numbers(self, name: str, stored: StoredTensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """What is stored of our tensor, or of a part of it, as numbers. See `tensor`."""
        weights = self._source.numbers(self._ours_to_theirs[name], stored)
        return torch.from_numpy(weights).to(device=self._device, dtype=dtype or self.dtype)

    def _asked(self, stored: StoredTensor) -> StoredTensor:
        self.asked_bytes += stored.num_bytes
        return stored

    def _refuse_missing(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        missing = [self._names.theirs(name) for name in expected if not self.has(name)]
        if missing:
            raise ModelFileError.about(
                self._source.path,
                f"{len(missing)} tensors are missing",
                value=missing[:_MAX_SHOWN],
                bound="every tensor of the model that its configuration describes",
                remedy="The checkpoint is incomplete, or its configuration is another model's: fetch both again.",
            )

    def _refuse_misshapen(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in expected.items():
            theirs = self._ours_to_theirs[name]
            if self._source.shapes[theirs] != shape:
                raise ModelFileError.about(
                    self._source.path,
                    f"shape of {theirs}",
                    value=self._source.shapes[theirs],
                    bound=f"{shape}, as the configuration says",
                    remedy="Weights and configuration come from different models: fetch them together.",
                )

    def _refuse_extra(
        self, expected: Mapping[str, tuple[int, ...]], unread: frozenset[str], unread_layers: range
    ) -> None:
        extra = [
            name
            for name in self._source.shapes
            if self._names.ours(name) not in expected.keys() | unread
            and self._names.layer_of(name) not in unread_layers
            and not self._names.is_ignored(name)
        ]
        if extra:
            raise ModelFileError.about(
                self._source.path,
                f"{len(extra)} tensors would not be used",
                value=extra[:_MAX_SHOWN],
                bound="only tensors that the model computes with (biases and adapters are not supported yet)",
                remedy="Take a checkpoint without them: to leave them out would change the answers.",
            )


@dataclass(frozen=True, slots=True)
class LoadableMatrix:
    """Implements `MatrixSource`."""

    loader: WeightLoader
    stored: StoredTensor
    name: str  # ours

    def dequantised(self) -> Tensor:
        """See `MatrixSource.dequantised`."""
        return self.loader.numbers(self.name, self.stored)
