"""Reads single tensors of a checkpoint, whichever format it has, straight from the mapped file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.gguf_types import UnsupportedGgmlTypeError
from shardline_workers.weights.stored_numbers import Weights, read_numbers, readable_types

_SAFETENSORS_TYPES = ("F64", "F32", "F16", "BF16")


class TensorSource(Protocol):
    """A checkpoint's tensors under the checkpoint's own names."""

    @property
    def path(self) -> Path:
        """Where it lies, for messages."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Row-major shape of every tensor."""
        ...

    def stored(self, name: str) -> StoredTensor:
        """A tensor as it lies in the file. KeyError for an unknown name."""
        ...

    def numbers(self, name: str, stored: StoredTensor) -> Weights:
        """A tensor of this name, or a part of it, as a new array: float64 where it is stored so, else float32.

        Raises:
            ModelFileError: it is stored in a type that cannot be read.
        """
        ...


class GgufTensorSource:
    """The tensors of a GGUF file, dequantised as they are read. The file stays its owner's."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.path = file.path
        self.shapes = {name: tensor.shape for name, tensor in file.tensors.items()}

    def stored(self, name: str) -> StoredTensor:
        """See `TensorSource.stored`."""
        tensor = self._file.tensors[name]
        return StoredTensor(GGML_TYPES[tensor.ggml_type].name, tensor.shape, self._file.tensor_bytes(name))

    def numbers(self, name: str, stored: StoredTensor) -> Weights:
        """See `TensorSource.numbers`."""
        try:
            return read_numbers(stored)
        except UnsupportedGgmlTypeError as error:
            raise ModelFileError.about(
                self.path,
                f"type of tensor {name}",
                value=stored.kind,
                bound=f"one of {', '.join(readable_types())}",
                remedy="Take a file of the model that is quantised in another way.",
            ) from error


class SafetensorsTensorSource:
    """The tensors of a folder of safetensors files. The folder stays its owner's."""

    def __init__(self, path: Path, folder: SafetensorsFolder) -> None:
        self._folder = folder
        self.path = path
        self.shapes = {name: tensor.shape for name, tensor in folder.tensors.items()}

    def stored(self, name: str) -> StoredTensor:
        """See `TensorSource.stored`."""
        tensor = self._folder.tensors[name]
        return StoredTensor(tensor.dtype, tensor.shape, self._folder.tensor_bytes(name))

    def numbers(self, name: str, stored: StoredTensor) -> Weights:
        """See `TensorSource.numbers`."""
        if stored.kind not in _SAFETENSORS_TYPES:
            raise ModelFileError.about(
                self.path,
                f"dtype of {name}",
                value=stored.kind,
                bound=f"one of {', '.join(_SAFETENSORS_TYPES)}",
                remedy="Take a checkpoint that is not quantised, or a GGUF file of the model.",
            )
        return read_numbers(stored)
