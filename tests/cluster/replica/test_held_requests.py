"""Every answer of the queue means one thing for the leader."""

import pytest

from shardline_cluster.queue.answers import (
    CommitCode,
    InboxEntry,
    InboxKind,
)
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import RequestEnd, RequestState
from shardline_cluster.replica.held_requests import HELD_RETRY_S, HeldRequests
from tests.cluster.replica.leader_state import TERMS, LeaderState, reasons, said
from tests.cluster.replica.queue_replies import (
    claim_answer,
    done,
    grant,
    granted,
    reply,
    result,
)


def test_claims_are_numbered_and_carry_what_was_read_of_the_inbox() -> None:
    held = HeldRequests(incarnation="leader-1", terms=TERMS)

    first = held.next_claim(free_slots=2, free_tokens=10, nonce=b"11111111")
    held.claimed(reply(claim_answer(inbox=(InboxEntry(7, InboxKind.ENDED, "x"),))), 0.0)
    second = held.next_claim(free_slots=3, free_tokens=20, nonce=b"22222222")

    assert (first.number, first.inbox_seen, first.free_slots) == (1, 0, 2)
    assert (second.number, second.inbox_seen, second.free_tokens) == (2, 7, 20)


def test_a_claim_starts_what_is_new_and_the_same_grant_only_once() -> None:
    state = LeaderState()

    first = state.claim(granted("a", (1, 2)))
    again = state.claim(granted("a", (1, 2)))

    assert [h.id for h in first.started] == ["a"]
    assert first.started[0].logs()[0].ids == pack_ids((1, 2))
    assert (again.started, again.dropped) == ([], [])


def test_a_later_grant_of_the_same_request_replaces_the_earlier_one() -> None:
    state = LeaderState(granted("a"))

    changes = state.claim(granted("a", (5,), epoch=2))
    state.generate("a", 9, epoch=1)
    state.generate("a", 6, epoch=2)

    assert reasons(changes) == ["a: a later claim has another grant"]
    assert [h.grant.epoch for h in changes.started] == [2]
    assert said(state.commit()) == {"a": [(1, (6,), False)]}


def test_a_commit_says_what_the_log_lacks_and_nothing_twice() -> None:
    state = LeaderState(granted("a", (1, 2)), granted("b"))
    state.generate("a", 3, 4)

    call = state.commit()
    state.generate("a", 5)
    state.answer(call, result("a", CommitCode.OK, 4))

    assert said(call) == {"a": [(2, (3, 4), False)]}
    assert said(state.commit()) == {"a": [(4, (5,), False)]}
    assert state.held.num_uncommitted == 1


def test_log_probabilities_travel_beside_their_ids() -> None:
    state = LeaderState(granted("a", num_logprobs=1))
    key = "a#1." + b"12345678".hex()
    state.held.record(key, 0, ids=pack_ids((1,)), logprobs=b"x" * 16)
    state.answer(state.commit(), result("a", CommitCode.OK, 1))

    state.held.record(key, 0, ids=pack_ids((2, 3)), logprobs=b"y" * 32)

    assert state.commit().entries[0].sequences[0].logprobs == b"y" * 32


def test_a_request_is_over_when_its_last_sequence_is() -> None:
    state = LeaderState(granted("a", (), ()))
    state.generate("a", 1, finish=True)
    state.generate("a", 2, sequence=1)
    first = state.answer(state.commit(), result("a", CommitCode.OK, 1, 1))

    state.generate("a", 3, sequence=1, finish=True)
    call = state.commit()
    last = state.answer(call, result("a", CommitCode.OK, 1, 2, end=done(1, 2)))

    assert first.dropped == []
    assert said(call) == {"a": [(1, (3,), True)]}
    assert reasons(last) == ["a: DONE"]
    assert state.held.num_held == 0


def test_tokens_after_a_finish_are_dropped() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1, finish=True)
    state.generate("a", 2)

    assert said(state.commit()) == {"a": [(0, (1,), True)]}


def test_an_error_of_the_engine_ends_the_request_as_failed() -> None:
    state = LeaderState(granted("a"))
    state.held.fail("a#1." + b"12345678".hex(), "NaN in its logits")

    call = state.commit()
    end = RequestEnd(RequestState.FAILED, (0,), (None,), error="NaN in its logits")
    changes = state.answer(call, result("a", CommitCode.OK, 0, end=end))

    assert call.entries[0].error == "NaN in its logits"
    assert reasons(changes) == ["a: FAILED"]


def test_a_held_finish_is_sent_again_after_a_pause_and_ends_then() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1, finish=True)

    changes = state.answer(state.commit(), result("a", CommitCode.HELD, 1), in_hold=True)
    at_once = state.commit()
    due = state.held.commit_due_in(state.now)
    state.now += HELD_RETRY_S
    again = state.commit()
    after = state.answer(again, result("a", CommitCode.OK, 1, end=done(1)))

    assert changes.dropped == []
    assert at_once.entries == ()
    assert due == pytest.approx(HELD_RETRY_S)
    assert said(again)["a"][0][2]
    assert reasons(after) == ["a: DONE"]


def test_behind_sends_again_from_there() -> None:
    state = LeaderState(granted("a", (1, 2), (3,)))
    state.generate("a", 4)
    state.generate("a", 5, sequence=1)

    changes = state.answer(state.commit(), result("a", CommitCode.BEHIND, 1, 1))

    assert changes.dropped == []
    assert said(state.commit()) == {"a": [(1, (2, 4), False), (1, (5,), False)]}


def test_ended_drops_and_remembers_the_log_up_to_the_end() -> None:
    state = LeaderState(granted("a", (1,)))
    state.generate("a", 2, 3)
    end = RequestEnd(RequestState.CANCELLED, (2,), (None,))

    changes = state.answer(state.commit(), result("a", CommitCode.ENDED, end=end))
    state.answer(state.commit(), identity="server-2", in_hold=True)
    (restore,) = state.held.take_restores()

    assert reasons(changes) == ["a: CANCELLED"]
    assert (restore.end, restore.grant, restore.logs[0].ids) == (end, None, pack_ids((1, 2)))


def test_conflict_drops_the_ids_and_hands_back() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)

    changes = state.answer(state.commit(), result("a", CommitCode.CONFLICT))

    assert reasons(changes) == ["a: the log holds other tokens"]
    assert state.held.take_releases() == [("a", grant())]


def test_fenced_drops_silently() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)

    changes = state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2), in_hold=True)

    assert reasons(changes) == ["a: another grant owns it"]
    assert (state.held.take_releases(), state.held.take_restores()) == ([], [])


def test_fenced_outside_a_hold_drops_even_with_the_higher_epoch() -> None:
    state = LeaderState(granted("a", epoch=3))
    state.generate("a", 1, epoch=3)

    changes = state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2))

    assert reasons(changes) == ["a: another grant owns it"]


def test_gone_from_a_server_that_knew_it_means_that_the_record_ran_out() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)

    changes = state.answer(state.commit(), result("a", CommitCode.GONE))

    assert reasons(changes) == ["a: its record ran out"]
    assert state.held.take_restores() == []


def test_a_dropped_request_takes_no_more_tokens() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2))

    state.generate("a", 2)

    assert state.commit().entries == ()
    assert state.held.num_uncommitted == 0
