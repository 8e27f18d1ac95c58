"""What routers, clients and people ask of a lane in memory: submit, attach, detach, look, cancel, forget, view."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from shardline_cluster.queue.answers import (
    Accepted,
    Duplicate,
    Ended,
    ForgetCode,
    Gone,
    InboxKind,
    KeyConflict,
    LaneFull,
    LaneView,
    OnHold,
    Snapshot,
    SubmitAnswer,
    TooLarge,
)
from shardline_cluster.queue.calls import LaneBounds, Member, MemberRole
from shardline_cluster.queue.log_encoding import ID_BYTES
from shardline_cluster.queue.memory_lane import ForgottenRequest, MemoryLane
from shardline_cluster.queue.memory_record import MemoryRecord
from shardline_cluster.queue.memory_sweep import drop_listener
from shardline_cluster.queue.records import RequestInfo, RequestState, SequenceLog, Submission
from shardline_cluster.queue.tenant_usage import TenantUsage

UNKNOWN_DRAIN_MS = 1_000  # asked of a refused client while nothing has been claimed yet


def register(lane: MemoryLane, member: Member) -> None:
    """Gives a leader or router its lease, or renews it."""
    if member.role is MemberRole.ROUTER:
        lane.members.routers[member.incarnation] = lane.now_ms + lane.terms.lease_ms
        return
    leader = lane.members.leader(member.incarnation)
    leader.member = member
    leader.renew(lane.now_ms, lane.terms.lease_ms)


def configure(lane: MemoryLane, bounds: LaneBounds) -> None:
    """Sets what the lane takes in."""
    lane.bounds = bounds


# --- submit ------------------------------------------------------------------------------------------------------


def submit(lane: MemoryLane, router: str, listener_number: int, submission: Submission) -> SubmitAnswer:
    """Accepts a request, or says why not."""
    known = _known(lane, submission)
    if known is not None:
        return _duplicate(lane, known, submission)
    refusal = _refusal(lane, submission)
    if refusal is not None:
        return refusal
    record = lane.create(_info(lane, submission), fresh=_is_fresh(lane, submission))
    if not submission.background:
        record.listeners[router] = listener_number
        _keep_router(lane, router)
    lane.wake_one()
    position = lane.position(record) or 0
    return Accepted(record.info, position, lane.drain_rate.wait_ms(position))


def _known(lane: MemoryLane, submission: Submission) -> MemoryRecord | None:
    if submission.idempotency_key is not None:
        known_id = lane.id_by_key.get((submission.tenant, submission.idempotency_key))
        if known_id is not None:
            return lane.records[known_id]
    return lane.records.get(submission.id)


def _duplicate(lane: MemoryLane, known: MemoryRecord, submission: Submission) -> Duplicate | KeyConflict:
    if known.info.submission.body_digest != submission.body_digest:
        return KeyConflict(known.id)
    if known.end is not None:
        lane.keep_anew(known)
    return Duplicate(known.info)


def _info(lane: MemoryLane, submission: Submission) -> RequestInfo:
    deadline_ms = None if submission.timeout_ms is None else lane.now_ms + submission.timeout_ms
    return RequestInfo(submission=submission, submitted_ms=lane.now_ms, deadline_ms=deadline_ms)


def _is_fresh(lane: MemoryLane, submission: Submission) -> bool:
    """Whether it is certain that this request is not older than the hold, should there be one."""
    return submission.drawn == lane.identity and submission.idempotency_key is None


def _refusal(lane: MemoryLane, submission: Submission) -> TooLarge | LaneFull | None:
    largest = lane.bounds.largest_request_tokens
    tokens = submission.prompt_tokens + submission.max_tokens
    if largest is not None and tokens > largest:
        return TooLarge(tokens, largest)
    waiting = lane.waiting()
    tokens = submission.prompt_tokens + submission.num_sequences * submission.max_tokens
    loads = (
        ("max_waiting_requests", len(waiting), 1, lane.bounds.max_waiting_requests),
        ("max_waiting_tokens", sum(r.bound_tokens for r in waiting), tokens, lane.bounds.max_waiting_tokens),
        ("max_waiting_bytes", _payload_bytes(waiting), len(submission.payload), lane.bounds.max_waiting_bytes),
    )
    for name, load, added, bound in loads:
        if load + added > bound:
            return LaneFull(name, bound, _retry_after_ms(lane, len(waiting), (load + added - bound) / max(load, 1)))
    return None


def _payload_bytes(waiting: list[MemoryRecord]) -> int:
    return sum(len(record.info.submission.payload) for record in waiting)


def _retry_after_ms(lane: MemoryLane, num_waiting: int, excess: float) -> int:
    """How long until the `excess` part of the queue has left it."""
    wait_ms = lane.drain_rate.wait_ms(max(1, ceil(excess * num_waiting)))
    return UNKNOWN_DRAIN_MS if wait_ms is None else max(1, wait_ms)


# --- listening and reading ---------------------------------------------------------------------------------------


def attach(
    lane: MemoryLane, router: str, listener_number: int, request_id: str, tenant: str, *, held: Sequence[int]
) -> Snapshot | OnHold | Gone:
    """Registers a listener, then reads what comes after `held`."""
    record = lane.find(request_id, tenant)
    if record is not None and record.end is None:
        record.listeners[router] = max(listener_number, record.listeners.get(router, 0))
        _keep_router(lane, router)
    return look(lane, request_id, tenant, held=held)


def _keep_router(lane: MemoryLane, router: str) -> None:
    """A listener must not outlive its router unnoticed, even where the server forgot the router."""
    lane.members.routers.setdefault(router, lane.now_ms + lane.terms.lease_ms)


def detach(lane: MemoryLane, router: str, listener_number: int, request_id: str) -> None:
    """Takes a listener away unless a newer attach has a higher number."""
    record = lane.records.get(request_id)
    if record is not None and record.listeners.get(router, listener_number + 1) <= listener_number:
        drop_listener(lane, record, router)


def look(lane: MemoryLane, request_id: str, tenant: str, *, held: Sequence[int] = ()) -> Snapshot | OnHold | Gone:
    """Reads record and logs, each after the tokens that are held."""
    record = lane.find(request_id, tenant)
    if record is None:
        return _unknown(lane, request_id)
    found = record.snapshot(lane.position(record))
    offsets = held or (0,) * len(found.logs)
    return replace(found, logs=tuple(_after(offset, log) for offset, log in zip(offsets, found.logs, strict=True)))


def _after(offset: int, log: SequenceLog) -> SequenceLog:
    width = len(log.logprobs) // log.num_tokens if log.num_tokens else 0
    return SequenceLog(log.ids[offset * ID_BYTES :], log.logprobs[offset * width :], log.finish)


def _unknown(lane: MemoryLane, request_id: str) -> OnHold | Gone:
    """What is said of an id without a record for this tenant: another tenant's is gone, hold or not."""
    return OnHold() if lane.in_hold and request_id not in lane.records else Gone()


# --- ending and deleting -----------------------------------------------------------------------------------------


def cancel(lane: MemoryLane, request_id: str, tenant: str) -> Ended | OnHold | Gone:
    """Ends a request in whatever state it is, or tells the end that it has."""
    record = lane.find(request_id, tenant)
    if record is None:
        return _unknown(lane, request_id)
    if record.end is None:
        if lane.held_back(record):
            return OnHold()
        lane.end(record, lane.end_now(record, RequestState.CANCELLED, "cancelled by the client"))
    return record.ended()


def forget(lane: MemoryLane, request_id: str, tenant: str) -> ForgetCode:
    """Deletes an ended request."""
    record = lane.find(request_id, tenant)
    if record is None:
        return ForgetCode.GONE
    if record.end is None:
        return ForgetCode.NOT_ENDED
    lane.forgotten[request_id] = ForgottenRequest(lane.now_ms, record.expires_ms)
    lane.vanish(record)
    return ForgetCode.FORGOTTEN


# --- for the controller and for people ---------------------------------------------------------------------------


def drain(lane: MemoryLane, incarnation: str) -> None:
    """Tells a leader to hand everything back; once is enough."""
    inbox = lane.members.leader(incarnation).inbox
    if not any(entry.kind is InboxKind.DRAIN for entry in inbox):
        lane.tell(incarnation, InboxKind.DRAIN)


def view(lane: MemoryLane) -> LaneView:
    """Counters and members."""
    waiting = lane.waiting()
    oldest_ms = min((r.info.submitted_ms for r in [*waiting, *lane.handed_back()]), default=lane.now_ms)
    return LaneView(
        waiting_requests=len(waiting),
        waiting_tokens=sum(r.bound_tokens for r in waiting),
        running_requests=sum(r.state is RequestState.RUNNING for r in lane.records.values()),
        handed_back_requests=len(lane.handed_back()),
        oldest_wait_ms=max(0, lane.now_ms - oldest_ms),
        hold_ends_ms=lane.hold_until_ms if lane.in_hold else None,
        now_ms=lane.now_ms,
        leaders=tuple(lane.members.view(name, len(lane.held(name))) for name in lane.members.with_lease()),
        num_routers=len(lane.members.routers),
    )


def usage(lane: MemoryLane) -> tuple[TenantUsage, ...]:
    """What ended requests have used, in order of tenants."""
    return tuple(lane.usage[tenant] for tenant in sorted(lane.usage))
