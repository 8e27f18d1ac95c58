"""What leaders ask of a lane in memory: claim, commit, release."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import ClaimAnswer, CommitAnswer, CommitCode, CommitResult
from shardline_cluster.queue.calls import ClaimCall, CommitCall, CommitEntry, SequenceCommit
from shardline_cluster.queue.held_digest import held_digest
from shardline_cluster.queue.log_encoding import ID_BYTES
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.memory_record import MemoryRecord
from shardline_cluster.queue.memory_sweep import next_event_ms, sweep_lane
from shardline_cluster.queue.records import Grant, RequestState

T = TypeVar("T")
MAX_GRANTS = 256  # of one claim: work of a script is bounded
MAX_REPLY_BYTES = 4 << 20  # of one claim; one request always fits
NONCE_BYTES = 8

# --- claim -------------------------------------------------------------------------------------------------------


def claim(lane: MemoryLane, call: ClaimCall) -> ClaimAnswer:
    """Grants what the leader has room for; the last claim's number again brings the same requests."""
    if len(call.nonce) != NONCE_BYTES:
        raise InvalidCallError(f"a claim's nonce has {NONCE_BYTES} bytes, but this one has {len(call.nonce)}")
    leader = lane.members.leader(call.incarnation)
    if call.number < leader.claim_number:
        return ClaimAnswer((), (), next_event_ms(lane), stale=True)
    leader.renew(lane.now_ms, lane.terms.lease_ms)
    if call.number == leader.claim_number:
        granted = [r for r in lane.held(call.incarnation) if r.grant and r.grant.nonce == leader.claim_nonce]
    else:
        sweep_lane(lane)
        granted = list(_give_while_room(lane, call))
        leader.claim_number, leader.claim_nonce = call.number, call.nonce
        leader.idle = not granted and call.free_slots > 0
    return ClaimAnswer(tuple(r.granted() for r in granted), leader.take_inbox(call.inbox_seen), next_event_ms(lane))


@dataclass(slots=True)
class _Room:
    """What is left of a claim."""

    slots: int
    tokens: int
    requests: int = MAX_GRANTS
    reply_bytes: int = MAX_REPLY_BYTES

    def take(self, record: MemoryRecord) -> bool:
        """Takes a request in if it fits."""
        size = len(record.info.submission.payload) + sum(len(log.ids) + len(log.logprobs) for log in record.logs)
        alone = self.requests == MAX_GRANTS
        if self.requests == 0 or record.num_open > self.slots or record.claim_tokens > self.tokens:
            return False
        if size > self.reply_bytes and not alone:
            return False
        self.slots -= record.num_open
        self.tokens -= record.claim_tokens
        self.requests -= 1
        self.reply_bytes -= size
        return True


def _give_while_room(lane: MemoryLane, call: ClaimCall) -> Iterator[MemoryRecord]:
    room = _Room(call.free_slots, call.free_tokens)
    for record in lane.handed_back():
        if not lane.held_back(record) and room.take(record):
            _grant(lane, record, call)
            yield record
    for record in _by_fair_share(lane, room):
        _grant(lane, record, call)
        yield record


def _by_fair_share(lane: MemoryLane, room: _Room) -> Iterator[MemoryRecord]:
    """Heads of the tenants' queues as long as they fit; a tenant whose head does not is passed over."""
    queues: dict[str, list[MemoryRecord]] = {}
    for record in lane.waiting():
        if not lane.held_back(record):
            queues.setdefault(record.tenant, []).append(record)
    while queues:
        tenant = min(queues, key=lambda t: (lane.shares.time_of(t), t))
        record = queues[tenant].pop(0)
        if not room.take(record):
            del queues[tenant]
            continue
        if not queues[tenant]:
            del queues[tenant]
        lane.shares.charge(record, lane.weight(tenant))
        lane.drain_rate.claimed(lane.now_ms, record.info.submitted_ms)
        yield record


def _grant(lane: MemoryLane, record: MemoryRecord, call: ClaimCall) -> None:
    record.fruitless_claims += 1
    lane.give(record, call.incarnation, Grant(record.epoch + 1, call.nonce))


# --- commit ------------------------------------------------------------------------------------------------------


def commit(lane: MemoryLane, call: CommitCall) -> CommitAnswer:
    """Appends a step's tokens; without entries a heartbeat."""
    _check_names(call)
    for entry in call.entries:
        _check_entry(lane.records.get(entry.id), entry)
    leader = lane.members.leader(call.incarnation)
    leader.renew(lane.now_ms, lane.terms.lease_ms)
    results = tuple(_commit_entry(lane, entry) for entry in call.entries)
    held = tuple((r.id, r.grant) for r in lane.held(call.incarnation) if r.grant is not None)
    inbox = leader.take_inbox(call.inbox_seen)
    return CommitAnswer(results, inbox, len(held), held_digest(held), held if call.list_held else None)


def _commit_entry(lane: MemoryLane, entry: CommitEntry) -> CommitResult:
    record = lane.records.get(entry.id)
    if record is None:
        return CommitResult(entry.id, CommitCode.GONE)
    if record.end is not None:
        code = CommitCode.OK if _is_ending_commit(record, entry) else CommitCode.ENDED
        return CommitResult(entry.id, code, record.end.offsets, end=record.end)
    if not _owns(record, entry.grant):
        return CommitResult(entry.id, CommitCode.FENCED, epoch=record.epoch)
    if record.info.deadline_ms is not None and record.info.deadline_ms <= lane.now_ms:
        return _past_deadline(lane, record)
    if any(s.offset > record.logs[s.sequence].num_tokens for s in entry.sequences):
        return CommitResult(entry.id, CommitCode.BEHIND, record.lengths)
    if any(_conflicts(record, s) for s in entry.sequences):
        return CommitResult(entry.id, CommitCode.CONFLICT)
    return _append(lane, record, entry)


def _owns(record: MemoryRecord, grant: Grant) -> bool:
    """Whether this grant gives the right to write; the nonce too, since a counter is no fence where servers forget."""
    return record.grant == grant


def _is_ending_commit(record: MemoryRecord, entry: CommitEntry) -> bool:
    """Whether this entry, sent before, is what ended the request."""
    end = record.end
    if end is None or record.ending_grant != entry.grant:
        return False
    if entry.error:
        return end.state is RequestState.FAILED and end.error == entry.error
    return bool(entry.sequences) and all(
        s.finish == end.finishes[s.sequence] and s.offset + len(s.ids) // ID_BYTES == end.offsets[s.sequence]
        for s in entry.sequences
    )


def _past_deadline(lane: MemoryLane, record: MemoryRecord) -> CommitResult:
    if lane.held_back(record):
        return CommitResult(record.id, CommitCode.HELD, record.lengths)
    end = lane.end_now(record, RequestState.EXPIRED, "the request's timeout is over")
    lane.end(record, end, told_owner=True)
    return CommitResult(record.id, CommitCode.ENDED, end.offsets, end=end)


def _conflicts(record: MemoryRecord, sent: SequenceCommit) -> bool:
    log = record.logs[sent.sequence]
    sent_end = sent.offset + len(sent.ids) // ID_BYTES
    overlap = log.ids[sent.offset * ID_BYTES :][: len(sent.ids)]
    if not sent.ids.startswith(overlap):
        return True
    if sent.finish is not None and sent_end < log.num_tokens:
        return True
    return log.finish is not None and sent_end > log.num_tokens


def _append(lane: MemoryLane, record: MemoryRecord, entry: CommitEntry) -> CommitResult:
    """Adds what is new; ends the request where this finishes its last sequence, or was told to."""
    may_end = not lane.held_back(record)
    added = [record.append(s, record_finish=may_end) for s in entry.sequences]
    appended = tuple(a for a in added if a is not None)
    wants_finish = any(s.finish is not None and record.logs[s.sequence].finish is None for s in entry.sequences)
    is_held = not may_end and (wants_finish or bool(entry.error))
    if may_end and (entry.error or not record.num_open):
        state = RequestState.FAILED if entry.error else RequestState.DONE
        record.ending_grant = entry.grant
        lane.end(record, lane.end_now(record, state, entry.error), appended=appended, told_owner=True)
    elif appended:
        lane.publish(record, appended)
    code = CommitCode.HELD if is_held else CommitCode.OK
    return CommitResult(record.id, code, record.lengths, end=record.end)


def _check_names(call: CommitCall) -> None:
    """Nothing may be named twice: the second would be compared with a log that the first has changed."""
    if (request_id := _repeated([entry.id for entry in call.entries])) is not None:
        raise InvalidCallError(f"{request_id} is named twice")
    for entry in call.entries:
        if (sequence := _repeated([sent.sequence for sent in entry.sequences])) is not None:
            raise InvalidCallError(f"{entry.id}: sequence {sequence} is named twice")


def _repeated(names: Sequence[T]) -> T | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _check_entry(record: MemoryRecord | None, entry: CommitEntry) -> None:
    for sent in entry.sequences:
        if len(sent.ids) % ID_BYTES or sent.offset < 0:
            raise InvalidCallError(f"{entry.id}: {len(sent.ids)} bytes at offset {sent.offset} are no token ids")
        if record is None:
            continue
        num_sequences = len(record.logs)
        if not 0 <= sent.sequence < num_sequences:
            raise InvalidCallError(f"{entry.id} has {num_sequences} sequences, there is no sequence {sent.sequence}")
        if len(sent.logprobs) != len(sent.ids) // ID_BYTES * record.logprobs_width:
            raise InvalidCallError(
                f"{entry.id}: {len(sent.logprobs)} bytes of log-probabilities for {len(sent.ids) // ID_BYTES} tokens, "
                f"but each has {record.logprobs_width}"
            )


# --- release -----------------------------------------------------------------------------------------------------


def release(lane: MemoryLane, incarnation: str, grants: Sequence[tuple[str, Grant]]) -> None:
    """Hands requests back with the tokens that they have; no attempt, no fruitless claim."""
    for request_id, grant in grants:
        record = lane.records.get(request_id)
        if record is not None and record.owner == incarnation and record.grant == grant:
            record.fruitless_claims = max(0, record.fruitless_claims - 1)
            lane.hand_back(record)
