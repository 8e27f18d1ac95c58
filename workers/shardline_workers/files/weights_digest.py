"""Names weights by what is in them: equal files have equal digests on every machine, whatever they are called.

A file of up to `FULL_HASH_BYTES` is hashed whole. A larger one would take minutes, so its size, its first 16 MiB (the
header, tokenizer included) and 1,024 evenly spaced pieces of 64 KiB stand for it: another training or quantisation
changes nearly every byte. Digests are kept in the cache folder by path, size and time of change, so that only the
first start hashes.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from shardline_workers.files.mapped_file import map_file

FULL_HASH_BYTES = 1 << 30
_HEAD_BYTES = 16 << 20
_NUM_SAMPLES = 1024
_SAMPLE_BYTES = 64 << 10
_DIGEST_BYTES = 8  # 16 hexadecimal digits: two of a thousand models collide once in 10^13 clusters


def file_digest(path: Path, *, cache_folder: Path) -> str:
    """16 hexadecimal digits for one file, remembered in `cache_folder` where that can be written.

    Raises:
        ModelFileError: the file cannot be read or is empty.
    """
    record = cache_folder / "digests" / f"{_hexdigest([os.fsencode(path.resolve())])}.json"
    state = _state(path)
    if state is not None and (known := _remembered(record, state)) is not None:
        return known
    content = map_file(path)
    digest = _hexdigest([len(content).to_bytes(8, "little"), *_pieces(content)])
    if state is not None:
        _remember(record, state, digest)
    return digest


def folder_digest(paths: Iterable[Path], *, cache_folder: Path) -> str:
    """16 hexadecimal digits for several files that make one model; names count, their order does not.

    Raises:
        ModelFileError: a file cannot be read or is empty.
    """
    lines = [f"{path.name} {file_digest(path, cache_folder=cache_folder)}\n" for path in sorted(paths)]
    return _hexdigest([line.encode() for line in lines])


def _hexdigest(pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: memoryview) -> Iterator[memoryview]:
    """What of a file is hashed, see the module."""
    if len(content) <= FULL_HASH_BYTES:
        yield content
        return
    yield content[:_HEAD_BYTES]
    stride = (len(content) - _HEAD_BYTES) // _NUM_SAMPLES
    for sample in range(_NUM_SAMPLES):
        start = _HEAD_BYTES + sample * stride
        yield content[start : start + _SAMPLE_BYTES]


def _state(path: Path) -> dict[str, int | str] | None:
    """What changes when a file does; None if it cannot be asked."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _remembered(record: Path, state: dict[str, int | str]) -> str | None:
    try:
        content = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None
    match content:
        case {"digest": str(digest), "state": known} if known == state:
            return digest
        case _:
            return None


def _remember(record: Path, state: dict[str, int | str], digest: str) -> None:
    """Written aside and renamed, so that a reader sees a whole record or none. A read-only cache only costs time."""
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".part-", dir=record.parent) as folder:
            part = Path(folder, record.name)
            part.write_text(json.dumps({"state": state, "digest": digest}))
            part.replace(record)
