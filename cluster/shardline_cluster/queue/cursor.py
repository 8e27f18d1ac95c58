"""Cursors: what a client shows to any router to get the rest of a stream. Opaque to clients.

Layout, little-endian: version (1 byte), number of sequences (1), then for each sequence its flags (1), its offset in
tokens (4) and the CRC-32 of its packed ids up to there (4). The checksum tells a log that continues what the client has
from one that does not; it is no signature, since whoever may ask for a request may read all of it.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.queue.log_encoding import ID_BYTES

VERSION = 1
MAX_SEQUENCES = 255
_HEAD = struct.Struct("<BB")
_SEQUENCE = struct.Struct("<BII")
_CLOSED = 1


@dataclass(frozen=True, slots=True)
class SequenceCursor:
    """How far one sequence was delivered."""

    offset: int = 0  # tokens
    crc: int = 0  # CRC-32 of the packed ids before `offset`
    closed: bool = False  # its finish, and with it text that was held back, was delivered too

    def advanced(self, packed_ids: bytes, *, closed: bool) -> "SequenceCursor":
        """The cursor after these further ids."""
        offset = self.offset + len(packed_ids) // ID_BYTES
        return SequenceCursor(offset, zlib.crc32(packed_ids, self.crc), closed)

    def continues(self, packed_ids: bytes) -> bool:
        """Whether a log that begins with these ids (at least `offset` of them) is the one that was delivered."""
        return zlib.crc32(memoryview(packed_ids)[: self.offset * ID_BYTES]) == self.crc


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far each sequence of a request was delivered."""

    sequences: tuple[SequenceCursor, ...]

    @classmethod
    def start(cls, num_sequences: int) -> "Cursor":
        """Before the first token."""
        return cls((SequenceCursor(),) * num_sequences)


def encode_cursor(cursor: Cursor) -> bytes:
    """The bytes that a client sees."""
    head = _HEAD.pack(VERSION, len(cursor.sequences))
    return head + b"".join(_SEQUENCE.pack(_CLOSED if s.closed else 0, s.offset, s.crc) for s in cursor.sequences)


def decode_cursor(encoded: bytes, num_sequences: int) -> Cursor:
    """The inverse, for a request of so many sequences; no bytes at all mean the start.

    Raises:
        InvalidRequestError: these bytes are no cursor of such a request.
    """
    if not encoded:
        return Cursor.start(num_sequences)
    if len(encoded) < _HEAD.size or encoded[0] != VERSION:
        raise _invalid(f"begins with {encoded[:2].hex()}, but this router knows version {VERSION} only")
    if encoded[1] != num_sequences:
        raise _invalid(f"is of {encoded[1]} sequences, but the request has {num_sequences}")
    if len(encoded) != _HEAD.size + num_sequences * _SEQUENCE.size:
        raise _invalid(
            f"has {len(encoded)} bytes instead of {_HEAD.size + num_sequences * _SEQUENCE.size} for "
            f"{num_sequences} sequences"
        )
    return Cursor(tuple(_decode_sequence(*entry) for entry in _SEQUENCE.iter_unpack(encoded[_HEAD.size :])))


def advance(cursor: Cursor, sequence: int, packed_ids: bytes, *, closed: bool) -> Cursor:
    """The cursor after further ids of one sequence."""
    parts: Sequence[SequenceCursor] = cursor.sequences
    changed = parts[sequence].advanced(packed_ids, closed=closed)
    return Cursor((*parts[:sequence], changed, *parts[sequence + 1 :]))


def _decode_sequence(flags: int, offset: int, crc: int) -> SequenceCursor:
    if flags & ~_CLOSED:
        raise _invalid(f"has unknown flags {flags}")
    return SequenceCursor(offset, crc, bool(flags & _CLOSED))


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"cursor {what}: send back the cursor of the last event unchanged, or none to read from the first token",
        field="cursor",
    )
