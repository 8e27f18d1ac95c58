"""What a router holds of a sequence grows only by what fits, and tells where the server's log differs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_cluster.queue.calls import SequenceCommit
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import SequenceFinish, SequenceLog
from shardline_cluster.router.streams.held_log import Fit, HeldLog, common_tokens

STOP = SequenceFinish("stop")


def _log(*ids: int, finish: SequenceFinish | None = None) -> SequenceLog:
    return SequenceLog(pack_ids(ids), b"".join(bytes([i]) * 8 for i in ids), finish)


def _run(offset: int, *ids: int, finish: SequenceFinish | None = None) -> SequenceCommit:
    return SequenceCommit(0, offset, pack_ids(ids), b"".join(bytes([i]) * 8 for i in ids), finish)


@pytest.mark.parametrize(
    ("run", "fit", "after"),
    [
        (_run(2, 3, 4), Fit.FITS, _log(1, 2, 3, 4)),
        (_run(1, 2, 3), Fit.FITS, _log(1, 2, 3)),
        (_run(0, 1), Fit.FITS, _log(1, 2)),
        (_run(3, 4), Fit.GAP, _log(1, 2)),
        (_run(1, 9, 3), Fit.DIFFERS, _log(1, 2)),
        (_run(0, 9), Fit.DIFFERS, _log(1, 2)),
        (_run(2, 3, finish=STOP), Fit.FITS, _log(1, 2, 3, finish=STOP)),
        (_run(2, finish=STOP), Fit.FITS, _log(1, 2, finish=STOP)),
        (_run(1, finish=STOP), Fit.FITS, _log(1, 2)),
    ],
)
def test_a_run_is_taken_in_only_where_it_fits(run: SequenceCommit, fit: Fit, after: SequenceLog) -> None:
    held = HeldLog(_log(1, 2))

    assert held.append(run) is fit

    assert held.as_log() == after


@pytest.mark.parametrize(
    ("log", "differs_at", "after"),
    [
        (_log(1, 2, 3), None, _log(1, 2, 3)),
        (_log(1), None, _log(1, 2)),
        (_log(1, 2, finish=STOP), None, _log(1, 2, finish=STOP)),
        (_log(1, 9, 3), 1, _log(1, 9, 3)),
        (_log(9), 0, _log(9)),
    ],
)
def test_the_servers_log_is_adopted_where_it_is_longer_or_differs(
    log: SequenceLog, differs_at: int | None, after: SequenceLog
) -> None:
    held = HeldLog(_log(1, 2))

    assert held.adopt(log) == differs_at

    assert held.as_log() == after


def test_a_cut_takes_tokens_log_probabilities_and_finish_away() -> None:
    held = HeldLog(_log(1, 2, 3, finish=STOP))

    held.cut(1)

    assert held.as_log() == _log(1)
    assert (held.ids(0, 1), held.logprobs(0, 1)) == (pack_ids([1]), bytes([1]) * 8)


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_common_tokens_counts_whole_tokens(prefix: list[int], one: list[int], other: list[int]) -> None:
    pairs = zip(prefix + one, prefix + other, strict=False)

    count = common_tokens(pack_ids(prefix + one), pack_ids(prefix + other))

    expected = 0
    for a, b in pairs:
        if a != b:
            break
        expected += 1
    assert count == expected
