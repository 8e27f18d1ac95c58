"""What a server forgot is given back by the leader before anything else."""

from collections.abc import Callable

import pytest

from shardline_cluster.queue.answers import (
    CommitCode,
    InboxEntry,
    InboxKind,
    RestoreAnswer,
    RestoreCode,
)
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import RequestEnd, RequestState
from tests.cluster.replica.leader_state import TERMS, LeaderState, reasons, said
from tests.cluster.replica.queue_replies import (
    done,
    grant,
    granted,
    reply,
    result,
)


def test_after_a_new_identity_the_next_commit_is_due_at_once_and_names_everything() -> None:
    state = LeaderState(granted("a", (1, 2)), granted("b"), granted("c", (), ()))
    state.answer(state.commit())
    assert state.held.commit_due_in(state.now) > 0

    state.answer(state.commit(), identity="server-2", in_hold=True)
    due = state.held.commit_due_in(state.now)
    call = state.commit()

    assert due == 0
    assert said(call) == {"a": [(2, (), False)], "b": [(0, (), False)], "c": [(0, (), False), (0, (), False)]}
    assert call.list_held


ANSWERS: dict[str, Callable[[LeaderState], object]] = {
    "claim": lambda s: s.claim(identity="server-2"),
    "registration": lambda s: s.held.answered("server-2", s.now),
    "release": lambda s: s.held.released([], "server-2", s.now),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_new_identity_in_any_reply_is_handled_first(answer: Callable[[LeaderState], object]) -> None:
    state = LeaderState(granted("a"))
    state.commit()

    answer(state)

    assert state.held.commit_due_in(state.now) == 0
    assert list(said(state.commit())) == ["a"]


def test_a_finish_that_was_taken_is_told_again_to_a_new_server() -> None:
    state = LeaderState(granted("a", (), ()))
    state.generate("a", 1, finish=True)
    state.answer(state.commit(), result("a", CommitCode.OK, 1, 0))

    state.held.answered("server-2", state.now)

    assert said(state.commit()) == {"a": [(1, (), True), (0, (), False)]}


def test_what_a_new_server_lacks_is_restored_with_its_grant_and_then_goes_on() -> None:
    state = LeaderState(granted("a", (1,)))
    state.generate("a", 2)
    state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2", in_hold=True)

    state.generate("a", 3)
    while_waiting = state.commit()
    (call,) = state.held.take_restores()
    state.generate("a", 4)
    in_flight = state.commit()
    changes = state.held.restored(call, reply(RestoreAnswer(RestoreCode.OK), identity="server-2"), state.now)

    assert (while_waiting.entries, in_flight.entries) == ((), ())
    assert (call.grant, call.end, call.logs[0].ids) == (grant(), None, pack_ids((1, 2, 3)))
    assert changes.dropped == []
    assert said(state.commit()) == {"a": [(3, (4,), False)]}


def test_a_restored_request_that_the_same_server_misses_later_has_run_out() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2", in_hold=True)
    (call,) = state.held.take_restores()
    state.held.restored(call, reply(RestoreAnswer(RestoreCode.OK), identity="server-2"), state.now)
    state.generate("a", 2)

    changes = state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2")

    assert reasons(changes) == ["a: its record ran out"]


def test_a_lower_epoch_in_a_hold_is_adopted_by_restore() -> None:
    state = LeaderState(granted("a", epoch=3))
    state.generate("a", 1, epoch=3)

    changes = state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2), identity="server-2", in_hold=True)

    assert changes.dropped == []
    assert [call.grant for call in state.held.take_restores()] == [grant(3)]


NOT_ADOPTED = (
    RestoreCode.REFUSED,
    RestoreCode.DIVERGED,
    RestoreCode.ENDED,
    RestoreCode.OTHER,
    RestoreCode.FORGOTTEN,
)


@pytest.mark.parametrize("code", NOT_ADOPTED)
def test_a_grant_that_is_not_adopted_is_dropped(code: RestoreCode) -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2", in_hold=True)
    (call,) = state.held.take_restores()

    changes = state.held.restored(call, reply(RestoreAnswer(code), identity="server-2"), state.now)

    assert reasons(changes) == [f"a: the server did not adopt its grant ({code.value})"]


def test_a_short_answer_has_the_whole_restore_sent_again() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2", in_hold=True)
    (call,) = state.held.take_restores()

    state.held.restored(call, reply(RestoreAnswer(RestoreCode.SHORT), identity="server-2"), state.now)

    assert state.held.take_restores() == [call]


def test_every_recent_end_is_restored_at_once_with_all_its_ids() -> None:
    state = LeaderState(granted("a"), granted("b"))
    state.finish("a", 1, 2)
    state.finish("b", 3)

    state.held.answered("server-2", state.now)
    calls = state.held.take_restores()

    assert [(c.info.id, c.end, c.logs[0].ids) for c in calls] == [
        ("a", done(2), pack_ids((1, 2))),
        ("b", done(1), pack_ids((3,))),
    ]


def test_an_end_whose_ids_are_not_all_here_is_left_to_those_who_have_them() -> None:
    """A router brought an earlier owner's ids late, and a client cancelled: the log ended past what is known here."""
    state = LeaderState(granted("a", (1, 2)))
    state.generate("a", 3)
    end = RequestEnd(RequestState.CANCELLED, (5,), (None,))
    state.answer(state.commit(), result("a", CommitCode.ENDED, end=end))

    state.answer(state.commit(), identity="server-2")

    assert state.held.take_restores() == []


def test_an_end_is_forgotten_only_after_its_term_under_one_server() -> None:
    state = LeaderState(granted("a"), granted("b"))
    state.finish("a", 1)
    state.now += TERMS.lately_ms / 1000 + 1  # an outage: nobody answered

    state.held.answered("server-2", state.now)
    after_outage = state.held.take_restores()
    state.now += TERMS.lately_ms / 1000 + 1
    state.held.answered("server-2", state.now)
    state.held.answered("server-3", state.now)

    assert [c.info.id for c in after_outage] == ["a"]
    assert state.held.take_restores() == []


def test_a_reply_of_the_old_server_read_late_only_causes_more_questions() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    old = state.commit()
    state.claim(identity="server-2")

    state.answer(old, result("a", CommitCode.OK, 1), identity="server-1")
    state.held.answered("server-2", state.now)

    assert said(state.commit()) == {"a": [(1, (), False)]}


def test_inbox_numbers_begin_anew_with_a_new_server() -> None:
    state = LeaderState()
    state.answer(state.commit(), inbox=(InboxEntry(50, InboxKind.ENDED, "x"),))
    assert state.commit().inbox_seen == 50

    state.held.answered("server-2", state.now)

    assert state.commit().inbox_seen == 0
