"""What lies in Redis is read back as it was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_cluster.queue.frames import FrameReader, pack_u32
from shardline_cluster.queue.record_encoding import (
    join_logs,
    pack_end,
    pack_finish,
    pack_offsets,
    pack_submission,
    unpack_end,
    unpack_finish,
    unpack_submission,
)
from shardline_cluster.queue.records import DisconnectAction, RequestEnd, RequestState, SequenceFinish, SequenceLog
from tests.cluster.queue.lane_calls import a_submission

FINISHES = st.one_of(
    st.none(), st.builds(SequenceFinish, st.text(min_size=1), st.text(), st.one_of(st.none(), st.integers(0, 2**31)))
)
U32 = st.integers(0, 2**32 - 1)
CHANGES = st.fixed_dictionaries(
    {
        "payload": st.binary(),
        "tenant": st.text(),
        "priority": st.integers(-100, 100),
        "num_sequences": st.integers(1, 256),
        "max_tokens": U32,
        "num_logprobs": st.one_of(st.none(), st.integers(0, 20)),
        "timeout_ms": st.one_of(st.none(), st.integers(0, 2**50)),
        "on_disconnect": st.sampled_from(DisconnectAction),
        "store": st.booleans(),
        "idempotency_key": st.one_of(st.none(), st.text()),
        "background": st.booleans(),
    }
)


@given(CHANGES)
def test_a_submission_is_read_back_as_it_was(changes: dict[str, Any]) -> None:
    submission = a_submission("server-1", **changes)

    assert unpack_submission(pack_submission(submission)) == submission


def test_a_submission_of_another_schema_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="schema 99"):
        unpack_submission(pack_u32(99))


@given(FINISHES)
def test_a_finish_is_read_back_as_it_was(finish: SequenceFinish | None) -> None:
    assert unpack_finish(pack_finish(finish)) == finish


@given(
    st.sampled_from([state for state in RequestState if state.terminal]),
    st.lists(st.tuples(U32, FINISHES), min_size=1, max_size=4),
    st.text(),
    st.integers(0, 2**50),
)
def test_an_end_is_read_back_as_it_was(
    state: RequestState, sequences: list[tuple[int, SequenceFinish | None]], error: str, ended_ms: int
) -> None:
    offsets, finishes = zip(*sequences, strict=True)
    end = RequestEnd(state, offsets, finishes, error, ended_ms)

    assert unpack_end(pack_end(end)) == end


def test_no_end_is_packed_as_nothing() -> None:
    assert pack_end(None) == b""
    assert unpack_end(b"") is None


def test_the_later_page_of_a_log_tells_the_finish() -> None:
    first, rest = SequenceLog(b"1234", b"a"), SequenceLog(b"5678", b"b", SequenceFinish("stop"))

    assert join_logs(first, rest) == SequenceLog(b"12345678", b"ab", SequenceFinish("stop"))
    assert FrameReader(pack_offsets((1, 0))).u32s(2) == (1, 0)
