"""What routers and the controller read from the scripts, and restores cut into pages.

The layouts stand in the heads of the scripts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import (
    Accepted,
    Duplicate,
    Gone,
    KeyConflict,
    LaneFull,
    LaneView,
    LeaderView,
    OnHold,
    RestoreAnswer,
    RestoreCode,
    Snapshot,
    SubmitAnswer,
    TooLarge,
)
from shardline_cluster.queue.calls import RestoreCall
from shardline_cluster.queue.frames import FrameReader
from shardline_cluster.queue.log_encoding import ID_BYTES, logprobs_width
from shardline_cluster.queue.record_encoding import pack_end, read_info, read_logs, unpack_end
from shardline_cluster.queue.records import RequestInfo, RequestState, SequenceLog, Submission
from shardline_cluster.queue.step_encoding import check_nonce, pack_grant, pack_restored_logs
from shardline_cluster.queue.tenant_usage import TenantUsage

MAX_PAGE_BYTES = 4 << 20  # of the logs in one call

# --- answers -----------------------------------------------------------------------------------------------------


def read_submit_answer(packed: bytes, submission: Submission) -> SubmitAnswer:
    """What submit.lua answered to this submission."""
    reader = FrameReader(packed)
    code = reader.text()
    if code == "ACCEPTED":
        return _read_accepted(reader, submission)
    if code == "DUPLICATE":
        return Duplicate(read_info(reader))
    if code == "CONFLICT":
        return KeyConflict(reader.text())
    if code == "TOO_LARGE":
        return TooLarge(reader.u64(), reader.u64())
    return LaneFull(reader.text(), reader.u64(), reader.u64())


def _read_accepted(reader: FrameReader, submission: Submission) -> Accepted:
    submitted_ms, deadline_ms, position, wait = reader.u64(), reader.u64(), reader.u32(), reader.u32()
    info = RequestInfo(submission=submission, submitted_ms=submitted_ms, deadline_ms=deadline_ms or None)
    return Accepted(info, position, wait - 1 if wait else None)


def read_snapshot(packed: bytes) -> tuple[Snapshot | OnHold | Gone, tuple[int, ...]]:
    """What attach.lua, look.lua or cancel.lua answered, and how long the whole logs are in tokens."""
    reader = FrameReader(packed)
    code = reader.text()
    if code == "HOLD":
        return OnHold(), ()
    if code == "GONE":
        return Gone(), ()
    info, state = read_info(reader), RequestState(reader.text())
    epoch, attempts, position = reader.u32s(3)
    end = unpack_end(reader.bytes())
    logs, lengths = read_logs(reader)
    return Snapshot(info, state, epoch, attempts, position - 1 if position else None, logs, end), lengths


def read_restore_answer(packed: bytes) -> RestoreAnswer:
    """What restore.lua answered."""
    reader = FrameReader(packed)
    return RestoreAnswer(RestoreCode(reader.text()), reader.u32(), reader.u32(), unpack_end(reader.bytes()))


def read_view(packed: bytes, now_ms: int) -> LaneView:
    """What view.lua answered."""
    reader = FrameReader(packed)
    waiting, tokens, running, handed_back, oldest_ms, hold_ends_ms, routers = (reader.u64() for _ in range(7))
    return LaneView(
        waiting_requests=waiting,
        waiting_tokens=tokens,
        running_requests=running,
        handed_back_requests=handed_back,
        oldest_wait_ms=oldest_ms,
        hold_ends_ms=hold_ends_ms or None,
        now_ms=now_ms,
        leaders=tuple(_read_leader(reader) for _ in range(reader.u32())),
        num_routers=routers,
    )


def read_usage(packed: bytes) -> tuple[TenantUsage, ...]:
    """What usage.lua answered, in order of tenants."""
    reader = FrameReader(packed)
    counters: dict[str, dict[str, int]] = {}
    for _ in range(reader.u32()):
        name, tenant = reader.text().split(":", 1)
        counters.setdefault(tenant, {})[name] = int(reader.text())
    return tuple(TenantUsage(tenant=tenant, **counters[tenant]) for tenant in sorted(counters))


def _read_leader(reader: FrameReader) -> LeaderView:
    return LeaderView(reader.text(), reader.u64(), reader.u32(), reader.text(), reader.text())


# --- restores ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RestorePage:
    """The packed part of one restore call. The first page asks for the grant, the last one tells the end."""

    logs: bytes
    grant: bytes
    end: bytes


def restore_pages(call: RestoreCall) -> Iterator[RestorePage]:
    """Cuts a restore so that each call stays small. One page is the rule.

    Raises:
        InvalidCallError: logs, end and submission do not fit each other.
    """
    width = _check_restore(call)
    if call.grant is not None:
        check_nonce(call.grant.nonce)
    page_tokens = max(1, MAX_PAGE_BYTES // (ID_BYTES + width) // len(call.logs))
    num_pages = max(1, -(-max(log.num_tokens for log in call.logs) // page_tokens))
    for page in range(num_pages):
        is_last = page == num_pages - 1
        offsets = [min(page * page_tokens, log.num_tokens) for log in call.logs]
        cut = [
            _cut(log, offset, page_tokens, width=width, with_finish=is_last)
            for log, offset in zip(call.logs, offsets, strict=True)
        ]
        yield RestorePage(
            pack_restored_logs(cut, offsets),
            pack_grant(call.grant) if call.grant is not None and page == 0 else b"",
            pack_end(call.end) if is_last else b"",
        )


def _cut(log: SequenceLog, offset: int, count: int, *, width: int, with_finish: bool) -> SequenceLog:
    ids = log.ids[offset * ID_BYTES : (offset + count) * ID_BYTES]
    logprobs = log.logprobs[offset * width : (offset + count) * width]
    return SequenceLog(ids, logprobs, log.finish if with_finish else None)


def _check_restore(call: RestoreCall) -> int:
    """Returns the bytes of log-probabilities that go with each token."""
    submission = call.info.submission
    if len(call.logs) != submission.num_sequences:
        raise InvalidCallError(
            f"{call.info.id} has {submission.num_sequences} sequences, but {len(call.logs)} logs are restored"
        )
    if call.end is not None and len(call.end.offsets) != submission.num_sequences:
        raise InvalidCallError(
            f"{call.info.id} has {submission.num_sequences} sequences, but its end names {len(call.end.offsets)} "
            "offsets"
        )
    width = 0 if submission.num_logprobs is None else logprobs_width(submission.num_logprobs)
    if any(len(log.ids) % ID_BYTES or len(log.logprobs) != log.num_tokens * width for log in call.logs):
        raise InvalidCallError(
            f"{call.info.id}: a restored log is not made of {ID_BYTES} bytes a token and {width} of log-probabilities"
        )
    return width
