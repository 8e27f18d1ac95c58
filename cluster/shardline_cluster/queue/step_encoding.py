"""What leaders send and read with every step: claims, commits, messages. Packed in bulk: this is the hot path.

The layouts stand in the heads of `scripts/claim.lua`, `commit.lua` and `prelude/ending.lua`.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import (
    ClaimAnswer,
    CommitAnswer,
    CommitCode,
    CommitResult,
    GrantedRequest,
    InboxEntry,
    InboxKind,
)
from shardline_cluster.queue.calls import CommitEntry, SequenceCommit
from shardline_cluster.queue.frames import FrameReader, pack_bytes, pack_text, pack_u32
from shardline_cluster.queue.log_encoding import ID_BYTES
from shardline_cluster.queue.published import Published
from shardline_cluster.queue.record_encoding import (
    NONCE_BYTES,
    pack_finish,
    read_info,
    read_logs,
    unpack_end,
    unpack_finish,
)
from shardline_cluster.queue.records import Grant, SequenceLog

_SEQUENCE = struct.Struct("<III")  # sequence, offset, bytes of ids
_CODES = {
    b"G": CommitCode.GONE,
    b"E": CommitCode.ENDED,
    b"F": CommitCode.FENCED,
    b"B": CommitCode.BEHIND,
    b"C": CommitCode.CONFLICT,
    b"H": CommitCode.HELD,
    b"O": CommitCode.OK,
}

# --- to the scripts ----------------------------------------------------------------------------------------------


def check_nonce(nonce: bytes) -> bytes:
    """A nonce of the right size.

    Raises:
        InvalidCallError: it has another one.
    """
    if len(nonce) != NONCE_BYTES:
        raise InvalidCallError(f"a nonce has {NONCE_BYTES} bytes, but this one has {len(nonce)}")
    return nonce


def pack_grant(grant: Grant) -> bytes:
    """Epoch and nonce. A nonce of another size is packed as well: it is a grant that nobody has."""
    return pack_u32(grant.epoch) + pack_bytes(grant.nonce)


def pack_grants(grants: Iterable[tuple[str, Grant]]) -> bytes:
    """What a leader releases."""
    packed = [pack_text(request_id) + pack_grant(grant) for request_id, grant in grants]
    return pack_u32(len(packed)) + b"".join(packed)


def pack_entries(entries: Sequence[CommitEntry]) -> bytes:
    """The entries of a commit."""
    parts = [pack_u32(len(entries))]
    for entry in entries:
        head = (pack_text(entry.id), pack_grant(entry.grant), pack_text(entry.error), pack_u32(len(entry.sequences)))
        parts.extend(head)
        for sent in entry.sequences:
            _check_ids(entry.id, sent)
            parts.append(_SEQUENCE.pack(sent.sequence, sent.offset, len(sent.ids)))
            parts.extend((sent.ids, pack_bytes(sent.logprobs), pack_bytes(pack_finish(sent.finish))))
    return b"".join(parts)


def pack_restored_logs(logs: Sequence[SequenceLog], offsets: Sequence[int]) -> bytes:
    """Logs as a restore brings them, each from an offset on."""
    parts = [pack_u32(len(logs))]
    for log, offset in zip(logs, offsets, strict=True):
        finish = pack_finish(log.finish)
        parts.extend((pack_u32(offset), pack_bytes(log.ids), pack_bytes(log.logprobs), pack_bytes(finish)))
    return b"".join(parts)


def _check_ids(request_id: str, sent: SequenceCommit) -> None:
    if len(sent.ids) % ID_BYTES or sent.offset < 0 or sent.sequence < 0:
        raise InvalidCallError(
            f"{request_id}: {len(sent.ids)} bytes at offset {sent.offset} of sequence {sent.sequence} are no token ids"
        )


# --- from the scripts --------------------------------------------------------------------------------------------


def read_claim_answer(packed: bytes) -> ClaimAnswer:
    """What claim.lua answered."""
    reader = FrameReader(packed)
    stale, next_event_ms = reader.u32(), reader.u32()
    inbox = _read_mail(reader)
    granted = tuple(_read_granted(reader) for _ in range(reader.u32()))
    return ClaimAnswer(granted, inbox, next_event_ms, bool(stale))


def _read_granted(reader: FrameReader) -> GrantedRequest:
    info = read_info(reader)
    grant = Grant(reader.u32(), reader.raw(NONCE_BYTES))
    attempts = reader.u32()
    logs, _ = read_logs(reader)
    return GrantedRequest(info, grant, logs, attempts)


def read_commit_answer(packed: bytes, entries: Sequence[CommitEntry]) -> CommitAnswer:
    """What commit.lua answered to these entries."""
    reader = FrameReader(packed)
    if reader.u32() != len(entries):
        raise struct.error("the answers are not as many as the entries")
    results = tuple(_read_result(reader, entry.id) for entry in entries)
    inbox = _read_mail(reader)
    num_held, digest, has_list = reader.u32(), reader.text(), reader.u32()
    held = tuple(_read_held(reader) for _ in range(num_held)) if has_list else None
    return CommitAnswer(results, inbox, num_held, digest, held)


def _read_result(reader: FrameReader, request_id: str) -> CommitResult:
    code = _CODES[reader.raw(1)]
    lengths = reader.u32s(reader.u32())
    epoch = reader.u32()
    return CommitResult(request_id, code, lengths, epoch, unpack_end(reader.bytes()))


def _read_held(reader: FrameReader) -> tuple[str, Grant]:
    request_id = reader.text()
    epoch, nonce = reader.text().split(":")
    return request_id, Grant(int(epoch), bytes.fromhex(nonce))


def _read_mail(reader: FrameReader) -> tuple[InboxEntry, ...]:
    count = reader.u32()
    return tuple(InboxEntry(reader.u64(), InboxKind(reader.text()), reader.text()) for _ in range(count))


def read_publications(packed: bytes) -> Iterator[Published]:
    """The publications in one message to a router."""
    reader = FrameReader(packed)
    identity = reader.text()
    for _ in range(reader.u32()):
        request_id, epoch, count = reader.text(), reader.u32(), reader.u32()
        sequences = tuple(_read_published_sequence(reader) for _ in range(count))
        yield Published(identity, request_id, epoch, sequences, unpack_end(reader.bytes()))


def _read_published_sequence(reader: FrameReader) -> SequenceCommit:
    sequence, offset = reader.u32(), reader.u32()
    return SequenceCommit(sequence, offset, reader.bytes(), reader.bytes(), unpack_finish(reader.bytes()))
