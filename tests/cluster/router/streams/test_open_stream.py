"""What a stream gives its readers, for snapshots that a real queue shows only in the middle of a failure."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import DataLossError
from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.calls import SequenceCommit
from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.published import Published
from shardline_cluster.queue.records import RequestEnd, RequestInfo, RequestState, SequenceFinish, SequenceLog
from shardline_cluster.router.streams.open_stream import MOST_TOKENS_A_TAKE, OpenStream, Taken
from shardline_cluster.router.streams.stream_reader import StreamReader
from tests.cluster.router.stepped_router import submission

INFO = RequestInfo(submission=submission("r", "i"), submitted_ms=0, deadline_ms=None)
STOP = SequenceFinish("stop")


def _snapshot(ids: list[int], end: RequestEnd | None = None, finish: SequenceFinish | None = None) -> Snapshot:
    state = end.state if end else RequestState.RUNNING
    log = SequenceLog(pack_ids(ids), finish=finish)
    return Snapshot(INFO, state, epoch=1, attempts=0, position=None, logs=(log,), end=end)


def _end(offset: int, state: RequestState = RequestState.DONE) -> RequestEnd:
    return RequestEnd(state, (offset,), (STOP if state is RequestState.DONE else None,))


def _reader(stream: OpenStream, *seen: int, closed: bool = False) -> StreamReader:
    cursor = advance(Cursor.start(1), 0, pack_ids(seen), closed=closed)
    reader = StreamReader("r", encode_cursor(cursor), lambda: None)
    stream.readers.append(reader)
    return reader


def _ids(stream: OpenStream, reader: StreamReader) -> tuple[int, ...]:
    return tuple(i for s in stream.take(reader).sequences for i in unpack_ids(s.ids))


def test_a_place_in_the_queue_from_before_a_claim_that_was_told_is_not_told_after_it() -> None:
    stream = OpenStream("r", "default", 0)
    stream.know(INFO)
    reader = _reader(stream)
    stream.adopt(replace(_snapshot([]), epoch=0, position=1), in_hold=False)
    before = stream.take(reader)
    stream.take_in(Published("i", "r", 1, (), None))
    claimed = stream.take(reader)

    stream.adopt(replace(_snapshot([]), epoch=0, position=0), in_hold=False)

    assert (before.position, claimed.epoch) == (1, 1)
    assert stream.take(reader).empty


def test_a_cursor_past_an_ended_log_waits_in_a_hold_where_the_end_is_further_on() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream, 1, 2)

    stream.adopt(_snapshot([1], _end(2)), in_hold=True)
    in_hold = _ids(stream, reader)
    stream.adopt(_snapshot([1], _end(2)), in_hold=False)

    assert in_hold == ()
    with pytest.raises(DataLossError, match="2 tokens were delivered, but the log ended at token 1"):
        stream.take(reader)


def test_a_log_that_ends_before_its_end_is_data_loss_only_after_the_hold() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream)

    stream.adopt(_snapshot([1], _end(2)), in_hold=True)
    in_hold = _ids(stream, reader)
    stream.adopt(_snapshot([1], _end(2)), in_hold=False)

    assert in_hold == (1,)
    with pytest.raises(DataLossError, match="ends before the end"):
        stream.take(reader)


def test_a_log_is_not_read_past_its_end() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream)

    stream.adopt(_snapshot([1, 2, 3], _end(2, RequestState.CANCELLED)), in_hold=False)
    update = stream.take(reader)

    assert unpack_ids(update.sequences[0].ids) == (1, 2)
    assert update.end is not None


def test_a_sequence_that_goes_on_after_its_finish_was_told_is_data_loss() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream, 1, closed=True)

    stream.adopt(_snapshot([1, 2]), in_hold=False)

    with pytest.raises(DataLossError, match="its finish was told at token 1"):
        stream.take(reader)


def test_a_long_log_is_taken_in_pieces_and_the_end_comes_with_the_last() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream)
    total = 2 * MOST_TOKENS_A_TAKE + 1

    stream.adopt(_snapshot(list(range(total)), _end(total)), in_hold=False)
    updates = [stream.take(reader) for _ in range(3)]

    assert [len(u.sequences[0].ids) // 4 for u in updates] == [MOST_TOKENS_A_TAKE, MOST_TOKENS_A_TAKE, 1]
    assert [u.end is not None for u in updates] == [False, False, True]
    assert [u.sequences[0].finish for u in updates] == [None, None, STOP]


def test_a_finish_that_comes_without_tokens_is_told_once() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream)
    stream.adopt(_snapshot([1]), in_hold=False)
    stream.take(reader)

    stream.take_in(Published("i", "r", 1, (SequenceCommit(0, 1, b"", b"", STOP),), None))
    first, second = stream.take(reader), stream.take(reader)

    assert [(s.ids, s.finish) for s in first.sequences] == [(b"", STOP)]
    assert second.empty


def test_an_end_past_what_is_held_makes_the_log_be_read() -> None:
    stream = OpenStream("r", "default", 0)
    stream.adopt(_snapshot([1]), in_hold=False)

    taken = stream.take_in(Published("i", "r", 1, (), _end(2)))

    assert taken is Taken.ASK
    assert stream.end is None


def test_a_claim_is_told_once_and_ends_the_place_in_the_queue() -> None:
    stream = OpenStream("r", "default", 0)
    reader = _reader(stream)
    waiting = Snapshot(INFO, RequestState.WAITING, 0, 0, 3, (SequenceLog(),), None)

    stream.adopt(waiting, in_hold=False)
    queued = stream.take(reader)
    stream.take_in(Published("i", "r", 1, (), None))
    started, nothing = stream.take(reader), stream.take(reader)

    assert (queued.position, queued.epoch) == (3, None)
    assert (started.position, started.epoch) == (None, 1)
    assert nothing.empty
