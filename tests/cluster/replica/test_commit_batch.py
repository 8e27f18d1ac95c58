"""One commit takes what is due, within the bounds of one script call."""

from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.replica.commit_batch import MAX_COMMIT_BYTES, MAX_COMMIT_REQUESTS, commit_batch, commit_due_at
from shardline_cluster.replica.held_request import HeldRequest
from tests.cluster.replica.queue_replies import granted


def _held(request_id: str, num_tokens: int = 1) -> HeldRequest:
    held = HeldRequest.of(granted(request_id), seen="server-1")
    held.record(0, ids=pack_ids(range(num_tokens)), logprobs=b"", finish=None)
    return held


def _ids(requests: list[HeldRequest], now: float = 10.0) -> list[str]:
    return [entry.id for entry in commit_batch(requests, now)]


def test_only_what_has_something_to_say_is_named() -> None:
    quiet, asking, restoring, early = _held("a", 0), _held("b", 0), _held("c"), _held("d")
    asking.ask = True
    restoring.restoring = True
    early.not_before = 11.0

    requests = [quiet, asking, restoring, early, _held("e")]

    assert _ids(requests) == ["b", "e"]
    assert _ids(requests, now=11.0) == ["b", "d", "e"]


def test_the_bounds_of_a_call_are_kept_but_one_request_always_fits() -> None:
    many = [_held(f"{i:03}") for i in range(MAX_COMMIT_REQUESTS + 5)]
    half = MAX_COMMIT_BYTES // 4 // 2
    large = [_held("a", half), _held("b", half), _held("c", 1)]
    huge = [_held("a", 4 * half), _held("b", 1)]

    assert len(_ids(many)) == MAX_COMMIT_REQUESTS
    assert _ids(large) == ["a", "b"]
    assert _ids(huge) == ["a"]


def test_a_commit_is_due_with_the_first_thing_to_say_or_else_with_the_heartbeat() -> None:
    quiet, early, restoring = _held("a", 0), _held("b"), _held("c")
    early.not_before = 11.0
    restoring.restoring = True

    assert commit_due_at([quiet, restoring], heartbeat_at=20.0) == 20.0
    assert commit_due_at([quiet, early], heartbeat_at=20.0) == 11.0
    assert commit_due_at([early, _held("d")], heartbeat_at=20.0) == 0.0
