"""A tensor as it lies in its file: the bytes and what they mean."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of an open file. The bytes are the file's: they go with it."""

    kind: str  # F64, F32, F16, BF16, or one of ggml's block types by its name
    shape: tuple[int, ...]  # row-major
    data: memoryview  # of bytes
