"""Several small files as one string of bytes, so that a case of a folder can be kept and shown like any other."""

import struct
from collections.abc import Mapping, Sequence

_LENGTH = struct.Struct("<I")


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Names and contents, one after the other, each with its length in front."""
    parts = [part for name, content in files.items() for part in (name.encode(), content)]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def unpack_files(packed: bytes, names: Sequence[str]) -> Mapping[str, bytes | None]:
    """The inverse, for these names; None for a file that is not there."""
    parts, position = [], 0
    while position < len(packed):
        (length,) = _LENGTH.unpack_from(packed, position)
        parts.append(packed[position + 4 : position + 4 + length])
        position += 4 + length
    found = {name.decode(): content for name, content in zip(parts[::2], parts[1::2], strict=True)}
    return {name: found.get(name) for name in names}
