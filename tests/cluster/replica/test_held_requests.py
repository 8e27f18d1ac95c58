"""Every answer of the queue means one thing for the leader, and forgetting is undone before anything else."""

from collections.abc import Callable, Sequence

import pytest

from shardline_cluster.queue.answers import (
    CommitCode,
    CommitResult,
    GrantedRequest,
    InboxEntry,
    InboxKind,
    RestoreAnswer,
    RestoreCode,
)
from shardline_cluster.queue.calls import CommitCall, SequenceCommit
from shardline_cluster.queue.held_digest import held_digest
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import Grant, RequestEnd, RequestState
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.changes import Changes
from shardline_cluster.replica.held_requests import HELD_RETRY_S, HeldRequests
from tests.cluster.replica.queue_replies import (
    LENGTH,
    claim_answer,
    commit_answer,
    done,
    grant,
    granted,
    reply,
    result,
)

TERMS = QueueTerms()


class LeaderState:
    """Held requests with a queue that answers as each test says, at an instant that tests move."""

    def __init__(self, *requests: GrantedRequest, identity: str = "server-1") -> None:
        self.held = HeldRequests(incarnation="leader-1", terms=TERMS)
        self.now = 100.0
        self.claim(*requests, identity=identity)

    def claim(self, *requests: GrantedRequest, identity: str = "server-1") -> Changes:
        self.held.next_claim(free_slots=8, free_tokens=100, nonce=b"12345678")
        return self.held.claimed(reply(claim_answer(*requests), identity=identity), self.now)

    def generate(self, request_id: str, *ids: int, sequence: int = 0, finish: bool = False, epoch: int = 1) -> None:
        key = f"{request_id}#{epoch}.{b'12345678'.hex()}"
        self.held.record(key, sequence, ids=pack_ids(ids), finish=LENGTH if finish else None)

    def commit(self) -> CommitCall:
        return self.held.next_commit(self.now)

    def answer(
        self,
        call: CommitCall,
        *results: CommitResult,
        identity: str = "server-1",
        in_hold: bool = False,
        inbox: tuple[InboxEntry, ...] = (),
        held: tuple[tuple[str, Grant], ...] | None = None,
        digest: str | None = None,
    ) -> Changes:
        """Answers a commit, with the digest of what the leader believes unless another one is given."""
        own = held_digest((h.id, h.grant) for h in self.held._held.values())
        answer = commit_answer(*results, inbox=inbox, held=held, digest=own if digest is None else digest)
        return self.held.committed(call, reply(answer, identity=identity, in_hold=in_hold), self.now)

    def finish(self, request_id: str, *ids: int) -> None:
        """Brings a request to its acknowledged end."""
        self.generate(request_id, *ids, finish=True)
        self.answer(self.commit(), result(request_id, CommitCode.OK, len(ids), end=done(len(ids))))


def _said(call: CommitCall) -> dict[str, list[tuple[int, tuple[int, ...], bool]]]:
    """Offset, ids and whether there is a finish, of each sequence that a commit names."""
    return {entry.id: [_sequence(s) for s in entry.sequences] for entry in call.entries}


def _sequence(commit: SequenceCommit) -> tuple[int, tuple[int, ...], bool]:
    return commit.offset, unpack_ids(commit.ids), commit.finish is not None


def _reasons(changes: Changes) -> Sequence[str]:
    return [f"{d.request.id}: {d.reason}" for d in changes.dropped]


# --- claims ------------------------------------------------------------------------------------------------------


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

    assert _reasons(changes) == ["a: a later claim has another grant"]
    assert [h.grant.epoch for h in changes.started] == [2]
    assert _said(state.commit()) == {"a": [(1, (6,), False)]}


# --- commits -----------------------------------------------------------------------------------------------------


def test_a_commit_says_what_the_log_lacks_and_nothing_twice() -> None:
    state = LeaderState(granted("a", (1, 2)), granted("b"))
    state.generate("a", 3, 4)

    call = state.commit()
    state.generate("a", 5)
    state.answer(call, result("a", CommitCode.OK, 4))

    assert _said(call) == {"a": [(2, (3, 4), False)]}
    assert _said(state.commit()) == {"a": [(4, (5,), False)]}
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
    assert _said(call) == {"a": [(1, (3,), True)]}
    assert _reasons(last) == ["a: DONE"]
    assert state.held.num_held == 0


def test_tokens_after_a_finish_are_dropped() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1, finish=True)
    state.generate("a", 2)

    assert _said(state.commit()) == {"a": [(0, (1,), True)]}


def test_an_error_of_the_engine_ends_the_request_as_failed() -> None:
    state = LeaderState(granted("a"))
    state.held.fail("a#1." + b"12345678".hex(), "NaN in its logits")

    call = state.commit()
    end = RequestEnd(RequestState.FAILED, (0,), (None,), error="NaN in its logits")
    changes = state.answer(call, result("a", CommitCode.OK, 0, end=end))

    assert call.entries[0].error == "NaN in its logits"
    assert _reasons(changes) == ["a: FAILED"]


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
    assert _said(again)["a"][0][2]
    assert _reasons(after) == ["a: DONE"]


def test_behind_sends_again_from_there() -> None:
    state = LeaderState(granted("a", (1, 2), (3,)))
    state.generate("a", 4)
    state.generate("a", 5, sequence=1)

    changes = state.answer(state.commit(), result("a", CommitCode.BEHIND, 1, 1))

    assert changes.dropped == []
    assert _said(state.commit()) == {"a": [(1, (2, 4), False), (1, (5,), False)]}


def test_ended_drops_and_remembers_the_log_up_to_the_end() -> None:
    state = LeaderState(granted("a", (1,)))
    state.generate("a", 2, 3)
    end = RequestEnd(RequestState.CANCELLED, (2,), (None,))

    changes = state.answer(state.commit(), result("a", CommitCode.ENDED, end=end))
    state.answer(state.commit(), identity="server-2", in_hold=True)
    (restore,) = state.held.take_restores()

    assert _reasons(changes) == ["a: CANCELLED"]
    assert (restore.end, restore.grant, restore.logs[0].ids) == (end, None, pack_ids((1, 2)))


def test_conflict_drops_the_ids_and_hands_back() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)

    changes = state.answer(state.commit(), result("a", CommitCode.CONFLICT))

    assert _reasons(changes) == ["a: the log holds other tokens"]
    assert state.held.take_releases() == [("a", grant())]


def test_fenced_drops_silently() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)

    changes = state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2), in_hold=True)

    assert _reasons(changes) == ["a: another grant owns it"]
    assert (state.held.take_releases(), state.held.take_restores()) == ([], [])


def test_fenced_outside_a_hold_drops_even_with_the_higher_epoch() -> None:
    state = LeaderState(granted("a", epoch=3))
    state.generate("a", 1, epoch=3)

    changes = state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2))

    assert _reasons(changes) == ["a: another grant owns it"]


def test_gone_from_a_server_that_knew_it_means_that_the_record_ran_out() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)

    changes = state.answer(state.commit(), result("a", CommitCode.GONE))

    assert _reasons(changes) == ["a: its record ran out"]
    assert state.held.take_restores() == []


def test_a_dropped_request_takes_no_more_tokens() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.FENCED, epoch=2))

    state.generate("a", 2)

    assert state.commit().entries == ()
    assert state.held.num_uncommitted == 0


# --- when the server forgets ---------------------------------------------------------------------------------------


def test_after_a_new_identity_the_next_commit_is_due_at_once_and_names_everything() -> None:
    state = LeaderState(granted("a", (1, 2)), granted("b"), granted("c", (), ()))
    state.answer(state.commit())
    assert state.held.commit_due_in(state.now) > 0

    state.answer(state.commit(), identity="server-2", in_hold=True)
    due = state.held.commit_due_in(state.now)
    call = state.commit()

    assert due == 0
    assert _said(call) == {"a": [(2, (), False)], "b": [(0, (), False)], "c": [(0, (), False), (0, (), False)]}
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
    assert list(_said(state.commit())) == ["a"]


def test_a_finish_that_was_taken_is_told_again_to_a_new_server() -> None:
    state = LeaderState(granted("a", (), ()))
    state.generate("a", 1, finish=True)
    state.answer(state.commit(), result("a", CommitCode.OK, 1, 0))

    state.held.answered("server-2", state.now)

    assert _said(state.commit()) == {"a": [(1, (), True), (0, (), False)]}


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
    assert _said(state.commit()) == {"a": [(3, (4,), False)]}


def test_a_restored_request_that_the_same_server_misses_later_has_run_out() -> None:
    state = LeaderState(granted("a"))
    state.generate("a", 1)
    state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2", in_hold=True)
    (call,) = state.held.take_restores()
    state.held.restored(call, reply(RestoreAnswer(RestoreCode.OK), identity="server-2"), state.now)
    state.generate("a", 2)

    changes = state.answer(state.commit(), result("a", CommitCode.GONE), identity="server-2")

    assert _reasons(changes) == ["a: its record ran out"]


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

    assert _reasons(changes) == [f"a: the server did not adopt its grant ({code.value})"]


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

    assert _said(state.commit()) == {"a": [(1, (), False)]}


def test_inbox_numbers_begin_anew_with_a_new_server() -> None:
    state = LeaderState()
    state.answer(state.commit(), inbox=(InboxEntry(50, InboxKind.ENDED, "x"),))
    assert state.commit().inbox_seen == 50

    state.held.answered("server-2", state.now)

    assert state.commit().inbox_seen == 0


# --- mail, drain, books -----------------------------------------------------------------------------------------------


def test_mail_about_an_end_makes_the_next_commit_ask() -> None:
    state = LeaderState(granted("a", (1,)))

    state.answer(state.commit(), inbox=(InboxEntry(1, InboxKind.ENDED, "a"), InboxEntry(2, InboxKind.ENDED, "z")))

    assert state.held.commit_due_in(state.now) == 0
    assert _said(state.commit()) == {"a": [(1, (), False)]}


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

    assert list(_said(state.commit())) == ["b"]


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
