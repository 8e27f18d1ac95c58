"""Cursors come back equal, tell logs apart, and what is no cursor is refused in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.queue.cursor import Cursor, SequenceCursor, advance, decode_cursor, encode_cursor
from shardline_cluster.queue.log_encoding import pack_ids

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=20)


@given(st.lists(st.tuples(st.integers(0, 2), IDS, st.booleans()), max_size=6))
def test_a_cursor_that_advanced_in_pieces_comes_back_and_continues_its_own_log(
    pieces: list[tuple[int, list[int], bool]],
) -> None:
    logs = [b"", b"", b""]
    cursor = Cursor.start(3)

    for sequence, ids, closed in pieces:
        logs[sequence] += pack_ids(ids)
        cursor = advance(cursor, sequence, pack_ids(ids), closed=closed)

    assert decode_cursor(encode_cursor(cursor), 3) == cursor
    assert [s.offset for s in cursor.sequences] == [len(log) // 4 for log in logs]
    assert all(s.continues(log + pack_ids([7])) for s, log in zip(cursor.sequences, logs, strict=True))


@given(IDS.filter(bool), st.data())
def test_a_log_that_differs_in_one_id_before_the_offset_is_told_apart(ids: list[int], data: st.DataObject) -> None:
    cursor = SequenceCursor().advanced(pack_ids(ids), closed=False)
    at = data.draw(st.integers(0, len(ids) - 1))

    changed = [*ids[:at], ids[at] ^ data.draw(st.integers(1, 2**32 - 1)), *ids[at + 1 :]]

    assert not cursor.continues(pack_ids(changed))


def test_no_bytes_mean_the_start() -> None:
    assert decode_cursor(b"", 2) == Cursor.start(2)


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (b"\x01", "knows version 1 only"),
        (b"\x02\x01" + bytes(9), "knows version 1 only"),
        (b"\x01\x03" + bytes(27), "is of 3 sequences, but the request has 1"),
        (b"\x01\x01" + bytes(8), "has 10 bytes instead of 11"),
        (b"\x01\x01" + bytes(10), "has 12 bytes instead of 11"),
        (b"\x01\x01\x80" + bytes(8), "unknown flags 128"),
    ],
)
def test_what_is_no_cursor_of_the_request_is_refused(encoded: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as error:
        decode_cursor(encoded, 1)

    assert error.value.field == "cursor"
