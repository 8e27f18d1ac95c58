"""Packed weights on the disk, so that only the first start packs them: one file for each model, slice and layout.

    magic, length and checksum of the table | table (JSON: offsets, sizes, checksums) | matrices, each on 64 bytes

The file is mapped, not read: replicas on a host share its pages, and a second start takes milliseconds. It appears
under its name only when it is whole: of two processes that pack at once the later one's, which holds the same, stays.
One that does not hold what it says is thrown away and made anew. All files together stay below a bound; the ones not
used for longest go first. A disk that is full, or cannot be written, costs the next start its time and nothing else.
"""

import json
import mmap
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

MAX_STORE_BYTES = 32 << 30  # of all files together
ABANDONED_S = 3600.0  # a half-written file that is older has lost its writer
_PART = "packing-"
_MAGIC = b"shardline packed"
_HEAD = struct.Struct("<16sQI")  # magic, bytes of the table, checksum of the table
_ALIGNMENT = 64  # bytes; a cache line, which the kernels expect
_CHUNK_BYTES = 4 << 20  # of a checksum that one thread computes at once


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    num_bytes: int
    checksums: tuple[int, ...]  # of each chunk


class PackedStore:
    """The matrices of one model slice, in the order in which they are asked for."""

    def __init__(self, folder: Path, key: str, *, max_bytes: int = MAX_STORE_BYTES) -> None:
        """Opens what there is.

        Args:
            folder: of the files of all models.
            key: names model, slice and layout: equal keys mean equal bytes.
            max_bytes: of all files together.
        """
        self._path = folder / f"{key}.packed"
        self._max_bytes = max_bytes
        self._ready = _open(self._path)
        self._made: list[Bytes] = []
        self._taken = 0

    def take(self, num_bytes: int) -> Bytes | None:
        """The next matrix, from the disk, not to be written; None where it has to be made and put."""
        if self._ready is None:
            return None
        if self._taken < len(self._ready) and len(self._ready[self._taken]) == num_bytes:
            self._taken += 1
            return self._ready[self._taken - 1]
        # Not what its key says: from here on all is made, and the file is written anew.
        self._made, self._ready = self._ready[: self._taken], None
        return None

    def put(self, packed: Bytes) -> None:
        """A matrix that was made because `take` gave None."""
        self._made.append(packed)

    def save(self) -> None:
        """Writes what was put, if anything. A disk that is full or read-only only costs the next start its time."""
        if not self._made:
            return
        with suppress(OSError):
            _make_room(self._path, sum(map(len, self._made)), self._max_bytes)
            _write(self._path, self._made)
        self._made = []


def _open(path: Path) -> list[Bytes] | None:
    """The matrices of a file; None where there is none, or it is broken and was thrown away."""
    try:
        with path.open("rb") as file:
            # Copy on write: nobody writes, but tensors cannot be made of memory that is read-only.
            content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except (OSError, ValueError):
        return None
    entries = _read_table(content)
    if entries is None or not _all_whole(content, entries):
        with suppress(OSError):  # a folder that cannot be written: it is passed over each time
            path.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(path)  # used last: see _make_room
    return [content[entry.offset : entry.offset + entry.num_bytes] for entry in entries]


def _read_table(content: Bytes) -> list[_Entry] | None:
    if len(content) < _HEAD.size:
        return None
    magic, table_bytes, checksum = _HEAD.unpack(content[: _HEAD.size].tobytes())
    table = content[_HEAD.size : _HEAD.size + table_bytes].tobytes()
    if magic != _MAGIC or len(table) != table_bytes or zlib.crc32(table) != checksum:
        return None
    return [_Entry(offset, num_bytes, tuple(checksums)) for offset, num_bytes, checksums in json.loads(table)]


def _all_whole(content: Bytes, entries: Sequence[_Entry]) -> bool:
    if any(entry.offset + entry.num_bytes > len(content) for entry in entries):
        return False
    matrices = [content[entry.offset : entry.offset + entry.num_bytes] for entry in entries]
    return _checksums(matrices) == [entry.checksums for entry in entries]


def _checksums(matrices: Sequence[Bytes]) -> list[tuple[int, ...]]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(_chunk_checksums, matrices))


def _chunk_checksums(matrix: Bytes) -> tuple[int, ...]:
    return tuple(zlib.crc32(matrix[start : start + _CHUNK_BYTES].data) for start in range(0, len(matrix), _CHUNK_BYTES))


def _write(path: Path, matrices: Sequence[Bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table, offsets = _table(matrices)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_PART, delete=False) as file:
        try:
            file.write(_HEAD.pack(_MAGIC, len(table), zlib.crc32(table)) + table)
            for offset, matrix in zip(offsets, matrices, strict=True):
                file.seek(offset)
                file.write(matrix.data)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _table(matrices: Sequence[Bytes]) -> tuple[bytes, list[int]]:
    """The table, padded so that its own length does not depend on the offsets in it, and the offsets."""
    checksums = _checksums(matrices)
    digits = sum(len(str(sum_)) + 2 for sums in checksums for sum_ in sums)
    room = digits + 64 * len(matrices) + 2
    offsets: list[int] = []
    end = _HEAD.size + room
    for matrix in matrices:
        offsets.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = offsets[-1] + len(matrix)
    rows = [(offset, len(matrix), sums) for offset, matrix, sums in zip(offsets, matrices, checksums, strict=True)]
    return json.dumps(rows).encode().ljust(room), offsets


def _make_room(path: Path, num_bytes: int, max_bytes: int) -> None:
    """Deletes files that were not used for longest until `num_bytes` more stay within the bound.

    Raises:
        OSError: they never would, or the disk has no room for them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    status = os.statvfs(path.parent)
    if num_bytes > min(max_bytes, status.f_bavail * status.f_frsize // 2):
        raise OSError(f"packed weights of {num_bytes} bytes are too large for the store")
    others = sorted((other for other in path.parent.glob("*.packed")), key=lambda other: other.stat().st_mtime)
    total = sum(other.stat().st_size for other in others)
    for other in others:
        if total + num_bytes <= max_bytes:
            return
        total -= other.stat().st_size
        other.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """What killed processes had begun to write."""
    for part in folder.glob(f"{_PART}*"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()
