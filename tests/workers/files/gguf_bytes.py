"""Writes small GGUF files for tests, lies included: each part can be replaced by a wrong one."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 32


def text(value: str) -> bytes:
    """A GGUF string."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: object) -> bytes:
    """One metadata pair; the type follows from the Python type."""
    return text(key) + _typed(value)


def _typed(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<Iq", 11, value)
        case float():
            return struct.pack("<Id", 12, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case list():
            elements = [_typed(element) for element in value] or [struct.pack("<I", 8)]
            return (
                struct.pack("<I", 9)
                + elements[0][:4]
                + struct.pack("<Q", len(value))
                + b"".join(element[4:] for element in elements)
            )
        case _:
            raise TypeError(value)


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor. `dims` as in the file, fastest first."""

    name: str
    dims: Sequence[int]
    ggml_type: int = 0
    offset: int = 0

    def encoded(self) -> bytes:
        dims = struct.pack(f"<I{len(self.dims)}Q", len(self.dims), *self.dims)
        return text(self.name) + dims + struct.pack("<IQ", self.ggml_type, self.offset)


def gguf_bytes(
    *,
    pairs: Sequence[bytes] = (),
    tensors: Sequence[TensorInfo] = (),
    data: bytes = b"",
    magic: bytes = b"GGUF",
    version: int = 3,
    num_pairs: int | None = None,
    num_tensors: int | None = None,
) -> bytes:
    """A whole file; counts that are given replace the true ones."""
    counts = (
        len(tensors) if num_tensors is None else num_tensors,
        len(pairs) if num_pairs is None else num_pairs,
    )
    header = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs)
    header += b"".join(tensor.encoded() for tensor in tensors)
    return header + b"\0" * (-len(header) % ALIGNMENT) + data
