"""Restores and releases go out once, and are known to be on their way until they are answered."""

from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.replica.errands import Errands
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.recent_ends import RecentEnd
from tests.cluster.replica.queue_replies import done, grant, granted


def _held(request_id: str) -> HeldRequest:
    return HeldRequest.of(granted(request_id), seen="server-1")


def test_a_restore_carries_what_is_known_when_it_goes_out() -> None:
    errands, held = Errands("leader-1"), _held("a")
    errands.restore(held)
    held.record(0, ids=pack_ids((5,)), logprobs=b"", finish=None)

    (call,) = errands.take_restores()

    assert (call.incarnation, call.grant, call.end) == ("leader-1", grant(), None)
    assert call.logs[0].ids == pack_ids((5,))


def test_the_same_restore_waits_only_once_but_a_grant_and_an_end_are_two() -> None:
    errands, held = Errands("leader-1"), _held("a")
    end = RecentEnd(held.info, held.logs(), done(0), since=0.0)

    errands.restore(held)
    errands.restore(held)
    errands.restore(end)
    errands.restore(end)

    assert [(c.grant, c.end) for c in errands.take_restores()] == [(grant(), None), (None, done(0))]
    assert errands.take_restores() == []


def test_something_is_pending_until_everything_is_answered() -> None:
    errands = Errands("leader-1")
    errands.restore(_held("a"))
    errands.release("b", grant())
    waiting = errands.pending

    errands.take_restores()
    grants = errands.take_releases()
    in_flight = (errands.pending, errands.is_releasing("b", grant()))
    errands.restored()
    half = errands.pending
    errands.released(grants)

    assert (waiting, in_flight, half) == (True, (True, True), True)
    assert not errands.pending
    assert not errands.is_releasing("b", grant())


def test_another_grant_of_the_same_request_is_not_on_its_way() -> None:
    errands = Errands("leader-1")
    errands.release("b", grant(1))

    assert errands.is_releasing("b", grant(1))
    assert not errands.is_releasing("b", grant(2))
