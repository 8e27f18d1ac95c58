"""How a lane in memory is given back what a server forgot."""

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import RestoreAnswer, RestoreCode
from shardline_cluster.queue.calls import RestoreCall, SequenceCommit
from shardline_cluster.queue.log_encoding import ID_BYTES, logprobs_width
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.memory_record import MemoryRecord
from shardline_cluster.queue.records import RequestEnd, RequestInfo, RequestState, SequenceLog


def restore(lane: MemoryLane, call: RestoreCall) -> RestoreAnswer:
    """Completes a record by what the caller knows; an end that is there wins, a log that differs stays."""
    _check(call)
    mark = lane.forgotten.get(call.info.id)
    if mark is not None and call.info.submitted_ms < mark.forgotten_ms:
        return RestoreAnswer(RestoreCode.FORGOTTEN)
    record = lane.records.get(call.info.id)
    if record is not None and record.info.submitted_ms != call.info.submitted_ms:
        if _is_another_run(record, call.info):
            if record.end is None or call.info.submitted_ms < record.info.submitted_ms:
                return RestoreAnswer(RestoreCode.OTHER)
            lane.vanish(record)
            record = None
        else:
            record.info = min(record.info, call.info, key=lambda info: info.submitted_ms)
    known = record is not None
    if record is None:
        record = lane.create(call.info, fresh=False)
    if record.end is not None:
        return RestoreAnswer(RestoreCode.ENDED, end=record.end)
    for sequence, (log, told) in enumerate(zip(record.logs, call.logs, strict=True)):
        offset = _first_difference(log, told, may_be_cut=call.end is not None)
        if offset is not None:
            return RestoreAnswer(RestoreCode.DIVERGED, sequence, offset)
    _complete(record, call)
    return _settle(lane, record, call, known=known)


def _settle(lane: MemoryLane, record: MemoryRecord, call: RestoreCall, *, known: bool) -> RestoreAnswer:
    """Ends the record, gives it to its former owner, or lets it wait."""
    if call.end is not None:
        lane.complete_finishes(record, call.end)
        lane.end(record, call.end, may_be_counted=_has_run_out(lane, record, call.end))
        return RestoreAnswer(RestoreCode.OK, end=record.end)
    if call.grant is not None:
        return _adopt(lane, record, call, known=known)
    if record.state is RequestState.WAITING:
        lane.wake_one()
    return RestoreAnswer(RestoreCode.OK)


def _has_run_out(lane: MemoryLane, record: MemoryRecord, end: RequestEnd) -> bool:
    """Whether a record with this end would have run out: that it is missing does not say that its count was lost."""
    return end.ended_ms + lane.keep_ms(record) <= lane.now_ms


def _adopt(lane: MemoryLane, record: MemoryRecord, call: RestoreCall, *, known: bool) -> RestoreAnswer:
    assert call.grant is not None, "only a leader that shows its grant adopts"
    if record.grant == call.grant and record.owner == call.incarnation:
        return RestoreAnswer(RestoreCode.OK)
    if known and not (lane.in_hold and call.grant.epoch > record.epoch):
        return RestoreAnswer(RestoreCode.REFUSED)
    lane.give(record, call.incarnation, call.grant)
    lane.members.leader(call.incarnation).renew(lane.now_ms, lane.terms.lease_ms)
    return RestoreAnswer(RestoreCode.OK)


def _is_another_run(record: MemoryRecord, told: RequestInfo) -> bool:
    """Whether an id derived from a key has come again after its retention.

    Apart by less than that, or never claimed and without tokens, it is the same run, submitted again after a rollback.
    """
    apart_ms = abs(told.submitted_ms - record.info.submitted_ms)
    touched = record.epoch > 0 or any(record.lengths) or record.end is not None
    return apart_ms >= record.info.submission.retention_ms and touched


def _first_difference(log: SequenceLog, told: SequenceLog, *, may_be_cut: bool) -> int | None:
    """Offset of the first token in which both differ. A finish and more tokens differ too, unless an end cuts."""
    common = min(log.num_tokens, told.num_tokens)
    if log.ids[: common * ID_BYTES] != told.ids[: common * ID_BYTES]:
        return next(
            at // ID_BYTES
            for at in range(0, common * ID_BYTES, ID_BYTES)
            if log.ids[at : at + ID_BYTES] != told.ids[at : at + ID_BYTES]
        )
    if log.finish and told.num_tokens > common:
        return common
    return common if told.finish and log.num_tokens > common and not may_be_cut else None


def _complete(record: MemoryRecord, call: RestoreCall) -> None:
    """Appends what the logs lack. The last open sequence is finished only by an end or a commit."""
    open_after = [not (log.finish or told.finish) for log, told in zip(record.logs, call.logs, strict=True)]
    for sequence, told in enumerate(call.logs):
        commit = SequenceCommit(sequence, 0, told.ids, told.logprobs, told.finish)
        record.append(commit, record_finish=any(open_after))


def _check(call: RestoreCall) -> None:
    num_sequences = call.info.submission.num_sequences
    if len(call.logs) != num_sequences:
        raise InvalidCallError(f"{call.info.id} has {num_sequences} sequences, but {len(call.logs)} logs are restored")
    if call.end is not None and len(call.end.offsets) != num_sequences:
        raise InvalidCallError(
            f"{call.info.id} has {num_sequences} sequences, but its end names {len(call.end.offsets)} offsets"
        )
    width = 0 if call.info.submission.num_logprobs is None else logprobs_width(call.info.submission.num_logprobs)
    if any(len(log.ids) % ID_BYTES or len(log.logprobs) != log.num_tokens * width for log in call.logs):
        raise InvalidCallError(
            f"{call.info.id}: a restored log is not made of {ID_BYTES} bytes a token and {width} of log-probabilities"
        )
