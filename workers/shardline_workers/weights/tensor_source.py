"""Reads single tensors of a checkpoint, whichever format it has, straight from the mapped file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.gguf_types import UnsupportedGgmlTypeError, bfloat16_to_float32, dequantise

Weights = NDArray[np.float32] | NDArray[np.float64]


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

    def read(self, name: str) -> Weights:
        """A tensor as a new array, float64 where it is stored so, else float32. KeyError for an unknown name.

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

    def read(self, name: str) -> Weights:
        """See `TensorSource.read`."""
        tensor = self._file.tensors[name]
        try:
            return dequantise(self._file.tensor_bytes(name), tensor.ggml_type, tensor.shape)
        except UnsupportedGgmlTypeError as error:
            raise ModelFileError(f"{self.path}: tensor {name}: {error}") from error


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

    def read(self, name: str) -> Weights:
        """See `TensorSource.read`."""
        tensor = self._folder.tensors[name]
        packed = self._folder.tensor_bytes(name)
        match tensor.dtype:
            case "F64":
                return np.frombuffer(packed, dtype="<f8").astype(np.float64).reshape(tensor.shape)
            case "F32":
                return np.frombuffer(packed, dtype="<f4").astype(np.float32).reshape(tensor.shape)
            case "F16":
                return np.frombuffer(packed, dtype="<f2").astype(np.float32).reshape(tensor.shape)
            case "BF16":
                return bfloat16_to_float32(np.frombuffer(packed, dtype="<u2")).reshape(tensor.shape)
            case other:
                raise ModelFileError.about(
                    self.path,
                    f"dtype of {name}",
                    value=other,
                    bound="one of F64, F32, F16, BF16",
                    remedy="Take a checkpoint that is not quantised, or a GGUF file of the model.",
                )
