"""Reads numbers, strings and arrays out of a GGUF header that may lie.

Layout (little-endian, versions 2 and 3; source: the GGUF specification in ggml's docs/gguf.md):

    magic "GGUF" | u32 version | u64 tensors | u64 pairs | pairs | tensor infos | padding | tensor data

Every count is compared with what is left of the file *before* anything is allocated for it.
"""

import struct
from pathlib import Path
from typing import NoReturn

from shardline_workers.files.model_file_error import ModelFileError

GgufScalar = int | float | bool | str
GgufValue = GgufScalar | tuple[GgufScalar, ...]

# Elements of all arrays together. The largest vocabularies: 260,000 tokens, 500,000 merges.
MAX_ARRAY_ELEMENTS = 8_000_000
# Of the header, tokenizer included: the largest known ones have 15 MB.
MAX_HEADER_BYTES = 256 << 20
# Metadata pairs, and tensors; the largest known models have a few thousand.
MAX_ENTRIES = 100_000
# The specification's bound for keys. For tensors' names it has 64, but nothing depends on that here.
MAX_NAME_BYTES = 65_535

_STRING = 8
_ARRAY = 9
# GGUF's value type → struct code.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FETCH_AGAIN = "The file is truncated or damaged: fetch it again."


class GgufHeader:
    """A position in the header that only moves forward, never past the file's end or `MAX_HEADER_BYTES`."""

    def __init__(self, path: Path, content: memoryview) -> None:
        self._path = path
        self._content = content
        self._end = min(len(content), MAX_HEADER_BYTES)
        self._elements_left = MAX_ARRAY_ELEMENTS
        self.position = 0

    @property
    def bytes_left(self) -> int:
        """Bytes between the position and the end of what may be header."""
        return self._end - self.position

    def refuse(self, what: str, *, value: object, bound: str, remedy: str = _FETCH_AGAIN) -> NoReturn:
        """Raises the error that names this file."""
        raise ModelFileError.about(self._path, what, value=value, bound=bound, remedy=remedy)

    def raw(self, num_bytes: int, what: str) -> memoryview:
        """The next `num_bytes` bytes."""
        if num_bytes > self.bytes_left:
            self.refuse(f"{what} reaches beyond the header", value=num_bytes, bound=f"at most {self.bytes_left} bytes")
        start = self.position
        self.position += num_bytes
        return self._content[start : self.position]

    def u32(self, what: str) -> int:
        """An unsigned 32-bit number."""
        return int.from_bytes(self.raw(4, what), "little")

    def u64(self, what: str) -> int:
        """An unsigned 64-bit number."""
        return int.from_bytes(self.raw(8, what), "little")

    def count(self, what: str, *, min_bytes_each: int, most: int) -> int:
        """A number of things that follow, each of at least `min_bytes_each` bytes: never more than can lie there."""
        count = self.u64(what)
        bound = min(most, self.bytes_left // min_bytes_each)
        if count > bound:
            self.refuse(what, value=count, bound=f"at most {bound}")
        return count

    def name(self, what: str) -> str:
        """A key or a tensor's name: valid UTF-8 of bounded length."""
        length = self.u64(f"length of {what}")
        if length > MAX_NAME_BYTES:
            self.refuse(f"length of {what}", value=length, bound=f"at most {MAX_NAME_BYTES} bytes")
        raw = bytes(self.raw(length, what))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.refuse(what, value=raw, bound="UTF-8")

    def text(self, what: str) -> str:
        """A string value; bytes that are no UTF-8 become U+FFFD, as a stray one in a description harms nobody."""
        return str(self.raw(self.u64(f"length of {what}"), what), "utf-8", "replace")

    def value(self, key: str) -> GgufValue:
        """The value of one pair, its type in front."""
        kind = self.u32(f"type of {key}")
        if kind == _STRING:
            return self.text(key)
        if kind == _ARRAY:
            return self._array(key)
        return self._numbers(kind, 1, key)[0]

    def _array(self, key: str) -> tuple[GgufScalar, ...]:
        kind = self.u32(f"element type of {key}")
        if kind == _ARRAY:
            self.refuse(f"{key} is an array of arrays", value=kind, bound="an array of numbers or strings")
        min_bytes = 8 if kind == _STRING else 1
        count = self.count(f"length of array {key}", min_bytes_each=min_bytes, most=self._elements_left)
        self._elements_left -= count
        return self._texts(count, key) if kind == _STRING else self._numbers(kind, count, key)

    def _numbers(self, kind: int, count: int, key: str) -> tuple[GgufScalar, ...]:
        code = _SCALARS.get(kind)
        if code is None:
            self.refuse(f"type of {key}", value=kind, bound=f"one of {[*_SCALARS, _STRING, _ARRAY]}")
        layout = struct.Struct(f"<{count}{code}")
        return layout.unpack(self.raw(layout.size, key))

    def _texts(self, count: int, key: str) -> tuple[str, ...]:
        """The one hot loop of the reader (a vocabulary and its merges): no call per string but the two it needs."""
        length_at = struct.Struct("<Q").unpack_from
        content, position, end = self._content, self.position, self._end
        texts: list[str] = []
        for _ in range(count):
            start = position + 8
            if start > end or (position := start + length_at(content, position)[0]) > end:
                self.refuse(
                    f"string {len(texts)} of {key} reaches beyond the header", value=position, bound=f"at most {end}"
                )
            texts.append(str(content[start:position], "utf-8", "replace"))
        self.position = position
        return tuple(texts)
