"""A GGUF file: metadata, and where each tensor lies. Knows no model and no tokenizer; decodes no weight."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from shardline_workers.files.byte_spans import refuse_overlaps
from shardline_workers.files.ggml_types import GGML_TYPES, GgmlType
from shardline_workers.files.gguf_header import MAX_ENTRIES, GgufHeader, GgufValue
from shardline_workers.files.mapped_file import map_file

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMS = 4
_MAX_WEIGHTS = 1 << 48  # of one tensor; keeps a hostile shape's product a small integer
_DEFAULT_ALIGNMENT = 32
_MIN_PAIR_BYTES = 8 + 4 + 1  # an empty key, a type, one byte of value
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # an empty name, one dimension, a type, an offset


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies. `shape` is row-major: ggml's dimensions reversed."""

    name: str
    ggml_type: int  # key of GGML_TYPES
    shape: tuple[int, ...]
    offset: int  # from the file's begin
    num_bytes: int


class GgufFile:
    """An open GGUF file: header parsed, tensors mapped. Thread-safe, as nothing changes but `close`."""

    def __init__(
        self, path: Path, content: memoryview, metadata: Mapping[str, GgufValue], tensors: Mapping[str, GgufTensor]
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors
        self._content = content

    @classmethod
    def open(cls, path: Path) -> Self:
        """Maps the file and reads its header.

        Raises:
            ModelFileError: the file is missing, truncated, or says something that cannot be true.
        """
        content = map_file(path)
        header = GgufHeader(path, content)
        num_tensors, num_pairs = _read_start(header)
        metadata = _read_metadata(header, num_pairs)
        infos = _read_tensor_infos(header, num_tensors, alignment=_alignment(header, metadata))
        tensors = _place(header, infos, alignment=_alignment(header, metadata), file_bytes=len(content))
        refuse_overlaps(path, [(tensor.offset, tensor.num_bytes, tensor.name) for tensor in tensors.values()])
        return cls(path, content, MappingProxyType(metadata), MappingProxyType(tensors))

    def tensor_bytes(self, name: str) -> memoryview:
        """The tensor's packed bytes, read-only, straight from the page cache. KeyError for an unknown name."""
        tensor = self.tensors[name]
        return self._content[tensor.offset : tensor.offset + tensor.num_bytes]

    def close(self) -> None:
        """Lets the file go. Views that were handed out stay valid; the mapping ends with the last of them."""
        self._content.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_start(header: GgufHeader) -> tuple[int, int]:
    """Magic and version; returns the numbers of tensors and of metadata pairs."""
    magic = bytes(header.raw(4, "magic"))
    if magic != _MAGIC:
        header.refuse(
            "not a GGUF file", value=magic, bound=f"{_MAGIC!r} in its first bytes", remedy="Give a .gguf file."
        )
    version = header.u32("version")
    if version not in _VERSIONS:
        header.refuse(
            "GGUF version",
            value=version,
            bound=f"one of {_VERSIONS}, little-endian",
            remedy="Convert the file anew with a current llama.cpp.",
        )
    num_tensors = header.count("number of tensors", min_bytes_each=_MIN_TENSOR_BYTES, most=MAX_ENTRIES)
    return num_tensors, header.count("number of metadata pairs", min_bytes_each=_MIN_PAIR_BYTES, most=MAX_ENTRIES)


def _read_metadata(header: GgufHeader, num_pairs: int) -> dict[str, GgufValue]:
    metadata: dict[str, GgufValue] = {}
    for _ in range(num_pairs):
        key = header.name("a metadata key")
        if key in metadata:
            header.refuse("a metadata key stands twice", value=key, bound="each key once")
        metadata[key] = header.value(key)
    return metadata


def _alignment(header: GgufHeader, metadata: Mapping[str, GgufValue]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        header.refuse("general.alignment", value=alignment, bound="a power of two up to 1 MiB")
    return alignment


def _read_tensor_infos(header: GgufHeader, num_tensors: int, *, alignment: int) -> list[GgufTensor]:
    """All tensor infos; their offsets still count from the begin of the data."""
    infos = [_read_tensor_info(header, alignment=alignment) for _ in range(num_tensors)]
    names = Counter(tensor.name for tensor in infos)
    if len(names) < num_tensors:
        header.refuse("a tensor stands twice", value=names.most_common(1)[0][0], bound="each name once")
    return infos


def _read_tensor_info(header: GgufHeader, *, alignment: int) -> GgufTensor:
    name = header.name("a tensor name")
    num_dims = header.u32(f"number of dimensions of {name}")
    if not 1 <= num_dims <= _MAX_DIMS:
        header.refuse(f"number of dimensions of {name}", value=num_dims, bound=f"1 to {_MAX_DIMS}")
    shape = tuple(reversed([header.u64(f"dimension {dim} of {name}") for dim in range(num_dims)]))
    type_id = header.u32(f"type of {name}")
    num_bytes = _packed_bytes(header, name, shape, _known_type(header, name, type_id))
    offset = header.u64(f"offset of {name}")
    if offset % alignment:
        header.refuse(f"offset of {name}", value=offset, bound=f"a multiple of {alignment}")
    return GgufTensor(name, type_id, shape, offset, num_bytes)


def _known_type(header: GgufHeader, name: str, type_id: int) -> GgmlType:
    known = GGML_TYPES.get(type_id)
    if known is None:
        names = ", ".join(known.name for known in GGML_TYPES.values())
        header.refuse(
            f"type of {name}", value=type_id, bound=f"one of {names}", remedy="Take a file quantised to one of these."
        )
    return known


def _packed_bytes(header: GgufHeader, name: str, shape: tuple[int, ...], kind: GgmlType) -> int:
    num_weights = math.prod(shape)
    if num_weights > _MAX_WEIGHTS:
        header.refuse(f"shape of {name}", value=shape, bound=f"at most {_MAX_WEIGHTS} weights")
    if shape[-1] % kind.block_weights:
        header.refuse(
            f"row of {name}", value=shape[-1], bound=f"a multiple of {kind.name}'s block of {kind.block_weights}"
        )
    return num_weights // kind.block_weights * kind.block_bytes


def _place(header: GgufHeader, infos: list[GgufTensor], *, alignment: int, file_bytes: int) -> dict[str, GgufTensor]:
    """The tensors by name, their offsets counted from the file's begin."""
    data_start = -(-header.position // alignment) * alignment
    for info in infos:
        end = data_start + info.offset + info.num_bytes
        if end > file_bytes:
            header.refuse(f"end of tensor {info.name}", value=end, bound=f"at most {file_bytes} bytes, the file's size")
    return {info.name: replace(info, offset=data_start + info.offset) for info in infos}
