"""A safetensors file: where each tensor lies. Decodes nothing.

Layout (source: the format's README): u64 header length, little-endian | JSON header | tensor data. The header maps a
tensor's name to {"dtype", "shape", "data_offsets": [begin, end]}, offsets counted from the begin of the data.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Self

from shardline_workers.files.byte_spans import refuse_overlaps
from shardline_workers.files.mapped_file import map_file
from shardline_workers.files.model_file_error import ModelFileError

# The format's own bound.
MAX_HEADER_BYTES = 100_000_000
# Bits of one element.
DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
    | {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
)
_LENGTH_BYTES = 8
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """Where one tensor lies; row-major, `offset` counts from the file's begin."""

    name: str
    dtype: str  # key of DTYPE_BITS
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


class SafetensorsFile:
    """An open safetensors file: header parsed, tensors mapped. Thread-safe, as nothing changes but `close`."""

    def __init__(self, path: Path, content: memoryview, tensors: Mapping[str, SafetensorsTensor]) -> None:
        self.path = path
        self.tensors = tensors
        self._content = content

    @classmethod
    def open(cls, path: Path) -> Self:
        """Maps the file and reads its header.

        Raises:
            ModelFileError: the file is missing, truncated, or says something that cannot be true.
        """
        content = map_file(path)
        header_bytes = _header_bytes(path, content)
        data_start = _LENGTH_BYTES + header_bytes
        entries = _parse(path, bytes(content[_LENGTH_BYTES:data_start]))
        tensors = {
            name: _tensor(path, name, entry, data_start=data_start, file_bytes=len(content))
            for name, entry in entries.items()
            if name != _METADATA
        }
        refuse_overlaps(path, [(tensor.offset, tensor.num_bytes, tensor.name) for tensor in tensors.values()])
        return cls(path, content, MappingProxyType(tensors))

    def tensor_bytes(self, name: str) -> memoryview:
        """The tensor's bytes, little-endian, read-only, straight from the page cache. KeyError for an unknown name."""
        tensor = self.tensors[name]
        return self._content[tensor.offset : tensor.offset + tensor.num_bytes]

    def close(self) -> None:
        """Lets the file go. Views that were handed out stay valid; the mapping ends with the last of them."""
        self._content.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse(path: Path, what: str, *, value: object, bound: str) -> NoReturn:
    remedy = "The file is truncated, damaged or no safetensors file: fetch it again."
    raise ModelFileError.about(path, what, value=value, bound=bound, remedy=remedy)


def _header_bytes(path: Path, content: memoryview) -> int:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    bound = min(MAX_HEADER_BYTES, max(0, len(content) - _LENGTH_BYTES))
    if length > bound:
        _refuse(path, "length of the header", value=length, bound=f"at most {bound} bytes")
    return length


def _parse(path: Path, header: bytes) -> dict[str, Any]:
    def entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A JSON object whose keys stand once: a second entry would silently hide the first."""
        unique = dict(pairs)
        if len(unique) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            _refuse(path, "a name stands twice in the header", value=twice, bound="each name once")
        return unique

    try:
        parsed = json.loads(header, object_pairs_hook=entries)
    except ModelFileError:
        raise
    except (ValueError, RecursionError) as error:
        _refuse(path, "the header is no JSON", value=str(error), bound="a JSON object")
    if not isinstance(parsed, dict):
        _refuse(path, "the header is no JSON object", value=parsed, bound="a JSON object")
    return parsed


def _tensor(path: Path, name: str, entry: object, *, data_start: int, file_bytes: int) -> SafetensorsTensor:
    dtype, shape, begin, end = _fields(path, name, entry)
    if not 0 <= begin <= end <= file_bytes - data_start:
        _refuse(path, f"data_offsets of {name}", value=[begin, end], bound=f"rising, within {file_bytes - data_start}")
    if (end - begin) * 8 != math.prod(shape) * DTYPE_BITS[dtype]:
        _refuse(path, f"data of {name}", value=f"{end - begin} bytes", bound=f"what {dtype} of shape {shape} takes")
    return SafetensorsTensor(name, dtype, shape, data_start + begin, end - begin)


def _fields(path: Path, name: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    """Types of all that an entry holds; whether the numbers fit is asked elsewhere."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            _refuse(path, f"entry of {name}", value=entry, bound="dtype, shape and two data_offsets")
    if dtype not in DTYPE_BITS:
        _refuse(path, f"dtype of {name}", value=dtype, bound=f"one of {', '.join(DTYPE_BITS)}")
    if len(shape) > 8 or not all(type(dim) is int and 0 <= dim < 1 << 48 for dim in shape):
        _refuse(path, f"shape of {name}", value=shape, bound="at most 8 numbers of at least 0")
    return dtype, tuple(shape), begin, end
