"""Cursors that clients show: bytes → ResumeRequest → id and cursor → a stream that is read to its end."""

from pathlib import Path
from random import Random

from google.protobuf.message import DecodeError

from shardline_cluster.errors import DataLossError, InvalidRequestError
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids, pack_logprobs
from shardline_cluster.queue.records import RequestEnd, RequestInfo, RequestState, SequenceFinish, SequenceLog
from shardline_cluster.queue.request_ids import lane_of
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.admission.admission import Admission, submission_of
from shardline_cluster.router.admission.tokenized_request import tokenized
from shardline_cluster.router.client_events import events_of, payload_of
from shardline_cluster.router.streams.open_stream import OpenStream
from shardline_cluster.router.streams.stream_reader import StreamReader
from shardline_cluster.router.text_assembly import TextAssembly
from shardline_protos import generation_pb2 as pb
from shardline_workers.text.simulated_text import simulated_text_model
from tests.fuzz.bytes_mutation import mutated
from tests.fuzz.message_mutation import mutate_message
from tests.fuzz.target import FuzzTarget

_TEXT = simulated_text_model(512)
_OUTPUTS = (b"one two \xf0\x9f\xaa\xa8 three", b"four EN", b"\xff\xfe")
_PROMPT = b"hi"
_ID = "lane-1-" + "0" * 32
_LOGPROBS = 1


def _log(output: bytes, finish: SequenceFinish | None) -> SequenceLog:
    packed = b"".join(pack_logprobs(i, -0.5, (i,), (-0.5,), num_logprobs=_LOGPROBS) for i in output)
    return SequenceLog(pack_ids(tuple(output)), packed, finish)


def _snapshot() -> Snapshot:
    """A request with three outputs and the log of its prompt, all ended."""
    request = pb.GenerateRequest(text=_PROMPT.decode())
    request.sampling.n, request.sampling.max_tokens, request.sampling.logprobs = 3, 100, _LOGPROBS
    request.sampling.prompt_logprobs, request.sampling.echo = _LOGPROBS, True
    request.sampling.stop.append("END")
    admission = Admission(
        model="m",
        lane="lane-1",
        drawn="server",
        tenant="tenant",
        terms=QueueTerms(),
        max_model_len=512,
        defaults=_TEXT.defaults,
        time_remaining_s=None,
    )
    submission = submission_of(request, tokenized(_TEXT, request), admission)
    finishes = (
        SequenceFinish("length"),
        SequenceFinish("stop", "", 5),
        SequenceFinish("length"),
        SequenceFinish("stop"),
    )
    logs = tuple(_log(output, finish) for output, finish in zip((*_OUTPUTS, _PROMPT), finishes, strict=True))
    end = RequestEnd(RequestState.DONE, tuple(log.num_tokens for log in logs), finishes)
    return Snapshot(
        info=RequestInfo(submission=submission, submitted_ms=1, deadline_ms=None),
        state=RequestState.DONE,
        epoch=1,
        attempts=1,
        logs=logs,
        end=end,
        position=None,
    )


_SNAPSHOT = _snapshot()


def make_resume(random: Random) -> bytes:
    """A cursor somewhere in the stream, or something that is none."""
    cursor = Cursor.start(len(_SNAPSHOT.logs))
    for sequence, log in enumerate(_SNAPSHOT.logs):
        num_tokens = random.randint(0, log.num_tokens)
        closed = num_tokens == log.num_tokens and random.random() < 0.5
        cursor = advance(cursor, sequence, log.ids[: 4 * num_tokens], closed=closed)
    shown = encode_cursor(cursor)
    if random.random() < 0.6:
        shown = mutated(random, shown)
    elif random.random() < 0.2:
        shown = random.randbytes(random.randrange(80))
    request = pb.ResumeRequest(request_id=_ID, cursor=shown)
    if random.random() < 0.2:
        mutate_message(random, request)
    content = request.SerializeToString(deterministic=True)
    return mutated(random, content) if random.random() < 0.2 else content


def read_resume(content: bytes, _folder: Path) -> None:
    """Reads the rest of the stream as a router would.

    Raises:
        DecodeError, InvalidRequestError, DataLossError: as a router refuses it.
    """
    request = pb.ResumeRequest.FromString(content)
    lane_of(request.request_id)
    stream = OpenStream(_ID, "tenant", 0.0)
    reader = StreamReader(_ID, request.cursor, on_change=lambda: None)
    stream.readers.append(reader)
    stream.adopt(_SNAPSHOT, in_hold=False)
    info = _SNAPSHOT.info
    assembly = TextAssembly(_TEXT, payload_of(info), num_logprobs=info.submission.num_logprobs)
    before = [
        SequenceLog(log.ids[: 4 * taken], log.logprobs, log.finish)
        for log, taken in zip(_SNAPSHOT.logs, reader.taken, strict=False)
    ]
    while not reader.ended:
        update = stream.take(reader)
        if before:
            assembly.replay(before, reader.closed)
            before = []
        for event in events_of(update, assembly, info):
            event.SerializeToString(deterministic=True)
        assert reader.verified, "a reader whose cursor fits nothing waits for ever"


RESUME = FuzzTarget(
    name="resume", make=make_resume, run=read_resume, documented=(DecodeError, InvalidRequestError, DataLossError)
)
