"""A leader's mail and drain, and how its books are compared with the queue's."""

import pytest

from shardline_cluster.queue.answers import (
    CommitCode,
    InboxEntry,
    InboxKind,
    RestoreAnswer,
    RestoreCode,
)
from shardline_cluster.queue.held_digest import held_digest
from tests.cluster.replica.leader_state import TERMS, LeaderState, said
from tests.cluster.replica.queue_replies import (
    done,
    grant,
    granted,
    reply,
    result,
)


def test_mail_about_an_end_makes_the_next_commit_ask() -> None:
    state = LeaderState(granted("a", (1,)))

    state.answer(state.commit(), inbox=(InboxEntry(1, InboxKind.ENDED, "a"), InboxEntry(2, InboxKind.ENDED, "z")))

    assert state.held.commit_due_in(state.now) == 0
    assert said(state.commit()) == {"a": [(1, (), False)]}


def test_told_to_drain_it_hands_back_what_it_holds_and_what_is_still_granted() -> None:
    state = LeaderState(granted("a"))

    state.answer(state.commit(), inbox=(InboxEntry(1, InboxKind.DRAIN),))
    late = state.claim(granted("b"))
    state.held.release_all()
    grants = state.held.take_releases()
    assert not state.held.owes_nothing
    state.held.released(grants, "server-1", state.now)

    assert late.started == []
    assert grants == [("a", grant()), ("b", grant())]
    assert state.held.owes_nothing


def test_told_to_drain_during_a_restore_it_hands_back_afterwards() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2", in_hold=True)
    (call,) = state.held.take_restores()

    state.held.release_all()
    during = state.held.take_releases()
    state.held.restored(call, reply(RestoreAnswer(RestoreCode.OK), identity="server-2"), state.now)
    state.held.release_all()

    assert during == []
    assert state.held.take_releases() == [("a", grant())]


def test_a_digest_that_differs_asks_for_the_list_and_one_that_agrees_does_not() -> None:
    state = LeaderState(granted("a"))

    state.answer(state.commit())
    agreed = state.commit().list_held
    state.answer(state.commit(), digest=held_digest([]))

    assert not agreed
    assert state.commit().list_held


def test_a_digest_proves_nothing_while_a_claim_is_in_flight() -> None:
    state = LeaderState(granted("a"))
    state.held.next_claim(free_slots=1, free_tokens=1, nonce=b"abcdefgh")

    state.answer(state.commit(), digest=held_digest([]))

    assert not state.commit().list_held


def test_what_nobody_knows_is_released_but_not_what_a_claim_in_flight_covers() -> None:
    state = LeaderState(granted("a"))
    state.held.next_claim(free_slots=1, free_tokens=1, nonce=b"abcdefgh")
    listed = (("a", grant()), ("stray", grant(4)), ("coming", grant(1, b"abcdefgh")))

    state.answer(state.commit(), held=listed)

    assert state.held.take_releases() == [("stray", grant(4))]


def test_what_is_remembered_as_ended_is_restored_rather_than_released() -> None:
    state = LeaderState(granted("a"))
    state.finish("a", 1)

    state.answer(state.commit(), held=(("a", grant()),))

    assert state.held.take_releases() == []
    assert [c.end for c in state.held.take_restores()] == [done(1)]


def test_what_the_server_does_not_list_is_asked_about() -> None:
    state = LeaderState(granted("a"), granted("b"))

    state.answer(state.commit(), held=(("a", grant()), ("b", grant(2))))

    assert list(said(state.commit())) == ["b"]


def test_a_grant_on_its_way_back_is_not_released_twice() -> None:
    state = LeaderState(granted("a"))
    state.held.release_all()
    grants = state.held.take_releases()

    state.answer(state.commit(), held=(("a", grant()),))

    assert grants == [("a", grant())]
    assert state.held.take_releases() == []


def test_one_commit_stays_within_its_bounds_and_the_next_takes_the_rest() -> None:
    state = LeaderState(*(granted(f"r{i:03}") for i in range(300)))
    for i in range(300):
        state.generate(f"r{i:03}", 1)

    call = state.commit()
    state.answer(call, *(result(e.id, CommitCode.OK, 1) for e in call.entries))

    assert len(call.entries) == 256
    assert state.held.commit_due_in(state.now) == 0
    assert len(state.commit().entries) == 44


def test_without_news_a_commit_is_due_once_a_heartbeat() -> None:
    state = LeaderState(granted("a"))
    state.answer(state.commit())

    assert state.held.commit_due_in(state.now) == pytest.approx(TERMS.heartbeat_ms / 1000)
    assert state.held.commit_due_in(state.now + 60) == 0
    state.held.hurry()
    assert state.held.commit_due_in(state.now) == 0
