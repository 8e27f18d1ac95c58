"""Submissions, ends and logs as they lie in Redis and travel to and from the scripts.

The layouts stand in `scripts/prelude/requests.lua`; both sides carry the schema's number.
"""

import struct
from collections.abc import Sequence

from shardline_cluster.queue.frames import FrameReader, pack_bytes, pack_text, pack_u32, pack_u64
from shardline_cluster.queue.records import (
    DisconnectAction,
    RequestEnd,
    RequestInfo,
    RequestState,
    SequenceFinish,
    SequenceLog,
    Submission,
)

SCHEMA = 1
PRIORITY_OFFSET = 100  # priorities are stored as unsigned integers
NONCE_BYTES = 8

# --- submissions -------------------------------------------------------------------------------------------------


def pack_submission(submission: Submission) -> bytes:
    """Everything that a submission says; the payload at the end."""
    s = submission
    return b"".join(
        (
            pack_u32(SCHEMA),
            pack_text(s.id),
            pack_text(s.drawn),
            pack_text(s.tenant),
            struct.pack("<4I", s.priority + PRIORITY_OFFSET, s.num_sequences, s.prompt_tokens, s.max_tokens),
            pack_u32(0 if s.num_logprobs is None else s.num_logprobs + 1),
            struct.pack("<IQQ", s.timeout_ms is not None, s.timeout_ms or 0, s.max_queue_ms),
            pack_text(s.on_disconnect.value),
            struct.pack("<QQI", s.grace_ms, s.retention_ms, s.store),
            pack_u32(s.idempotency_key is not None),
            pack_text(s.idempotency_key or ""),
            pack_text(s.body_digest),
            struct.pack("<2I", s.background, s.has_prompt_log),
            pack_bytes(s.payload),
        )
    )


def unpack_submission(packed: bytes) -> Submission:
    """The inverse of `pack_submission`."""
    reader = FrameReader(packed)
    schema = reader.u32()
    if schema != SCHEMA:
        raise ValueError(f"a record of schema {schema} was read, but this version knows schema {SCHEMA}: update it")
    request_id, drawn, tenant = reader.text(), reader.text(), reader.text()
    priority, num_sequences, prompt_tokens, max_tokens, logprobs = reader.u32s(5)
    has_timeout, timeout_ms, max_queue_ms = reader.u32(), reader.u64(), reader.u64()
    on_disconnect = DisconnectAction(reader.text())
    grace_ms, retention_ms, store = reader.u64(), reader.u64(), reader.u32()
    has_key, key = reader.u32(), reader.text()
    return Submission(
        id=request_id,
        drawn=drawn,
        tenant=tenant,
        priority=priority - PRIORITY_OFFSET,
        num_sequences=num_sequences,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        num_logprobs=logprobs - 1 if logprobs else None,
        timeout_ms=timeout_ms if has_timeout else None,
        max_queue_ms=max_queue_ms,
        on_disconnect=on_disconnect,
        grace_ms=grace_ms,
        retention_ms=retention_ms,
        store=bool(store),
        idempotency_key=key if has_key else None,
        body_digest=reader.text(),
        background=bool(reader.u32()),
        has_prompt_log=bool(reader.u32()),
        payload=reader.bytes(),
    )


def read_info(reader: FrameReader) -> RequestInfo:
    """Submission and the instants of its acceptance."""
    submission = unpack_submission(reader.bytes())
    submitted_ms, has_deadline, deadline_ms = reader.u64(), reader.u32(), reader.u64()
    return RequestInfo(
        submission=submission, submitted_ms=submitted_ms, deadline_ms=deadline_ms if has_deadline else None
    )


# --- finishes and ends -------------------------------------------------------------------------------------------


def pack_finish(finish: SequenceFinish | None) -> bytes:
    """Opaque to the scripts, which compare it; empty for none."""
    if finish is None:
        return b""
    text_end = 0 if finish.text_end is None else finish.text_end + 1
    return pack_text(finish.reason) + pack_text(finish.stop) + pack_u32(text_end)


def unpack_finish(packed: bytes) -> SequenceFinish | None:
    """The inverse of `pack_finish`."""
    if not packed:
        return None
    reader = FrameReader(packed)
    reason, stop, text_end = reader.text(), reader.text(), reader.u32()
    return SequenceFinish(reason, stop, text_end - 1 if text_end else None)


def pack_end(end: RequestEnd | None) -> bytes:
    """State, offsets, finishes, error and instant; empty for none."""
    if end is None:
        return b""
    offsets = struct.pack(f"<{len(end.offsets) + 1}I", len(end.offsets), *end.offsets)
    finishes = b"".join(pack_bytes(pack_finish(finish)) for finish in end.finishes)
    return pack_text(end.state.value) + offsets + finishes + pack_text(end.error) + pack_u64(end.ended_ms)


def unpack_end(packed: bytes) -> RequestEnd | None:
    """The inverse of `pack_end`."""
    if not packed:
        return None
    reader = FrameReader(packed)
    state, count = RequestState(reader.text()), reader.u32()
    offsets = reader.u32s(count)
    finishes = tuple(unpack_finish(reader.bytes()) for _ in range(count))
    return RequestEnd(state, offsets, finishes, reader.text(), reader.u64())


# --- logs --------------------------------------------------------------------------------------------------------


def read_logs(reader: FrameReader) -> tuple[tuple[SequenceLog, ...], tuple[int, ...]]:
    """Logs, or a page of each, and how long the whole logs are in tokens."""
    logs, lengths = [], []
    for _ in range(reader.u32()):
        length, _offset = reader.u32(), reader.u32()
        ids, logprobs, finish = reader.bytes(), reader.bytes(), unpack_finish(reader.bytes())
        logs.append(SequenceLog(ids, logprobs, finish))
        lengths.append(length)
    return tuple(logs), tuple(lengths)


def join_logs(first: SequenceLog, rest: SequenceLog) -> SequenceLog:
    """Two pages of one log, the later one read later."""
    return SequenceLog(first.ids + rest.ids, first.logprobs + rest.logprobs, rest.finish)


def pack_offsets(offsets: Sequence[int]) -> bytes:
    """Tokens of each sequence after which its log is wanted."""
    return struct.pack(f"<{len(offsets)}I", *offsets)
