"""What the queue and the streams say, in the messages that clients read. The one place where both meet."""

from collections.abc import Iterator, Sequence

from shardline_cluster.queue.answers import Accepted, Duplicate, Snapshot
from shardline_cluster.queue.cursor import Cursor, encode_cursor
from shardline_cluster.queue.log_encoding import ID_BYTES, unpack_ids
from shardline_cluster.queue.records import RequestInfo, SequenceLog
from shardline_cluster.router.protobuf_times import duration_of, timestamp_of
from shardline_cluster.router.streams.stream_reader import StreamUpdate
from shardline_cluster.router.text_assembly import STATES, TextAssembly, finished
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload


def payload_of(info: RequestInfo) -> RequestPayload:
    """What decides a request's tokens and text."""
    return RequestPayload.FromString(info.submission.payload)


def accepted_event(answer: Accepted | Duplicate) -> pb.GenerateEvent:
    """The request is durable. Without a key nobody but this submit, sent twice, can have brought it."""
    submission, payload = answer.info.submission, payload_of(answer.info)
    return pb.GenerateEvent(
        request_id=submission.id,
        cursor=encode_cursor(Cursor.start(submission.num_sequences)),
        accepted=pb.Accepted(
            model=payload.model,
            duplicate=isinstance(answer, Duplicate) and submission.idempotency_key is not None,
            prompt_tokens=submission.prompt_tokens,
            seed=payload.sampling.seed,
        ),
    )


def queued_event(answer: Accepted) -> pb.GenerateEvent:
    """Its first place in the queue."""
    wait_ms = answer.estimated_wait_ms
    return pb.GenerateEvent(
        request_id=answer.info.id,
        cursor=encode_cursor(Cursor.start(answer.info.submission.num_sequences)),
        queued=pb.Queued(position=answer.position, estimated_wait=None if wait_ms is None else duration_of(wait_ms)),
    )


def events_of(update: StreamUpdate, assembly: TextAssembly, info: RequestInfo) -> Iterator[pb.GenerateEvent]:
    """Everything that an update tells, in the order in which it happened, each with the cursor after it."""
    request_id = info.id
    if update.position is not None:
        queued = pb.Queued(position=update.position)
        yield pb.GenerateEvent(request_id=request_id, cursor=assembly.cursor, queued=queued)
    if update.epoch is not None:
        started = pb.Started(attempt=update.epoch)
        yield pb.GenerateEvent(request_id=request_id, cursor=assembly.cursor, started=started)
    for of_prompt in (sequence for sequence in update.sequences if assembly.is_prompt(sequence.sequence)):
        prompt = assembly.prompt(of_prompt)
        yield pb.GenerateEvent(request_id=request_id, cursor=assembly.cursor, prompt=prompt)
    for sequence in (sequence for sequence in update.sequences if not assembly.is_prompt(sequence.sequence)):
        tokens = assembly.tokens(sequence)
        yield pb.GenerateEvent(request_id=request_id, cursor=assembly.cursor, tokens=tokens)
    if update.end is not None:
        for tokens in assembly.rest():
            yield pb.GenerateEvent(request_id=request_id, cursor=assembly.cursor, tokens=tokens)
        last = finished(update.end, num_outputs=assembly.num_outputs, prompt_tokens=info.submission.prompt_tokens)
        yield pb.GenerateEvent(request_id=request_id, cursor=assembly.cursor, finished=last)


def readable_logs(snapshot: Snapshot) -> tuple[tuple[SequenceLog, ...], tuple[bool, ...]]:
    """The logs up to the request's end, and which sequences nothing can follow."""
    end = snapshot.end
    if end is None:
        return snapshot.logs, tuple(log.finish is not None for log in snapshot.logs)
    cut = tuple(
        SequenceLog(log.ids[: offset * ID_BYTES], log.logprobs, finish)
        for log, offset, finish in zip(snapshot.logs, end.offsets, end.finishes, strict=True)
    )
    return cut, (True,) * len(cut)


def status_of(
    snapshot: Snapshot, logs: Sequence[SequenceLog], texts: Sequence[str], assembly: TextAssembly
) -> pb.RequestStatus:
    """A request at one instant; `logs` and `texts` are what it has generated, and what was assembled."""
    info, payload = snapshot.info, payload_of(snapshot.info)
    outputs = [
        pb.SequenceOutput(sequence=sequence, token_ids=unpack_ids(log.ids), text=text)
        for sequence, (log, text) in enumerate(zip(logs[: len(texts)], texts, strict=True))
    ]
    return pb.RequestStatus(
        request_id=info.id,
        model=payload.model,
        state=STATES[snapshot.state],
        submitted=timestamp_of(info.submitted_ms),
        deadline=None if info.deadline_ms is None else timestamp_of(info.deadline_ms),
        attempts=snapshot.attempts,
        outputs=outputs,
        finished=None
        if snapshot.end is None
        else finished(snapshot.end, num_outputs=len(texts), prompt_tokens=info.submission.prompt_tokens),
        metadata=dict(payload.metadata),
        cursor=assembly.cursor,
        prompt_tokens=info.submission.prompt_tokens,
        prompt=assembly.prompt_of(logs[-1].ids, logs[-1].logprobs) if len(logs) > len(texts) else None,
    )
