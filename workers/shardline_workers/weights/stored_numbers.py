"""A stored tensor, or a part of one, as numbers."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.stored_rows import stored_rows
from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.gguf_types import UnsupportedGgmlTypeError, dequantise, dequantised_types

Weights = NDArray[np.float32] | NDArray[np.float64]

_NUMBERS: Mapping[str, int] = MappingProxyType({kind.name: number for number, kind in GGML_TYPES.items()})


def readable_types() -> tuple[str, ...]:
    """Names of the types that `read_numbers` reads."""
    return ("F64", *dequantised_types())


def read_numbers(stored: StoredTensor) -> Weights:
    """A new array, float64 where it is stored so, else float32. Reads the bytes of the tensor, or part, and no others.

    Raises:
        UnsupportedGgmlTypeError: it is stored in a type that cannot be read.
    """
    if stored.kind not in _NUMBERS:
        raise UnsupportedGgmlTypeError(f"type {stored.kind} cannot be read yet")
    packed = stored.data if stored.row_stride_bytes is None else memoryview(stored_rows(stored).tobytes())
    if stored.kind == "F64":
        return np.frombuffer(packed, dtype="<f8").astype(np.float64).reshape(stored.shape)
    return dequantise(packed, _NUMBERS[stored.kind], stored.shape)
