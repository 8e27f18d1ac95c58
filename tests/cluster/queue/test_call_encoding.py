"""Restores are cut into pages that lose nothing, ask for the grant first and tell the end last."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue import call_encoding
from shardline_cluster.queue.call_encoding import restore_pages
from shardline_cluster.queue.calls import RestoreCall
from shardline_cluster.queue.frames import FrameReader
from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.record_encoding import pack_end, unpack_finish
from shardline_cluster.queue.records import Grant, RequestEnd, RequestInfo, RequestState, SequenceLog
from shardline_cluster.queue.step_encoding import pack_grant
from tests.cluster.queue.lane_calls import STOP, a_log, a_submission

GRANT = Grant(3, b"12345678")
END = RequestEnd(RequestState.DONE, (5, 2), (STOP, STOP))
INFO = RequestInfo(submission=a_submission("s", num_sequences=2), submitted_ms=1, deadline_ms=None)
CALL = RestoreCall(
    incarnation="leader",
    info=INFO,
    logs=(replace(a_log(1, 2, 3, 4, 5), finish=STOP), replace(a_log(6, 7), finish=STOP)),
    grant=GRANT,
    end=END,
)


def opened(packed: bytes) -> list[tuple[int, list[int], bool]]:
    """Offset, ids and whether it is finished, for each sequence."""
    reader = FrameReader(packed)
    logs = []
    for _ in range(reader.u32()):
        offset, ids, _logprobs, finish = reader.u32(), reader.bytes(), reader.bytes(), reader.bytes()
        logs.append((offset, list(unpack_ids(ids)), unpack_finish(finish) is not None))
    return logs


def test_a_short_restore_is_one_page() -> None:
    (page,) = restore_pages(CALL)

    assert opened(page.logs) == [(0, [1, 2, 3, 4, 5], True), (0, [6, 7], True)]
    assert (page.grant, page.end) == (pack_grant(GRANT), pack_end(END))


def test_long_logs_are_cut_into_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_encoding, "MAX_PAGE_BYTES", 4 * 2 * 2)  # two tokens of each of two sequences

    pages = list(restore_pages(CALL))

    assert [opened(page.logs) for page in pages] == [
        [(0, [1, 2], False), (0, [6, 7], False)],
        [(2, [3, 4], False), (2, [], False)],
        [(4, [5], True), (2, [], True)],
    ]
    assert [page.grant for page in pages] == [pack_grant(GRANT), b"", b""]
    assert [page.end for page in pages] == [b"", b"", pack_end(END)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (replace(CALL, logs=CALL.logs[:1]), "1 logs are restored"),
        (replace(CALL, end=replace(END, offsets=(1,))), "names 1 offsets"),
        (replace(CALL, logs=(SequenceLog(b"123"), SequenceLog())), "not made of 4 bytes"),
        (replace(CALL, grant=Grant(1, b"short")), "nonce has 8 bytes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong: RestoreCall, reason: str) -> None:
    with pytest.raises(InvalidCallError, match=reason):
        list(restore_pages(wrong))
