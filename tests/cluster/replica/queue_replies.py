"""Grants and replies as a queue would give them, for tests of the leader's decisions."""

from typing import TypeVar

from shardline_cluster.queue.answers import (
    ClaimAnswer,
    CommitAnswer,
    CommitCode,
    CommitResult,
    GrantedRequest,
    InboxEntry,
)
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import (
    Grant,
    RequestEnd,
    RequestInfo,
    RequestState,
    SequenceFinish,
    SequenceLog,
    Submission,
)
from shardline_cluster.queue.request_queue import Reply
from tests.cluster.queue.lane_calls import a_submission

T = TypeVar("T")

STOP = SequenceFinish("stop")
LENGTH = SequenceFinish("length")


def submission(request_id: str, *, payload: bytes = b"", n: int = 1, num_logprobs: int | None = None) -> Submission:
    return a_submission(
        "server-1",
        id=request_id,
        payload=payload,
        num_sequences=n,
        prompt_tokens=3,
        max_tokens=8,
        num_logprobs=num_logprobs,
        retention_ms=1000,
    )


def grant(epoch: int = 1, nonce: bytes = b"12345678") -> Grant:
    return Grant(epoch, nonce)


def granted(
    request_id: str, *ids: tuple[int, ...], epoch: int = 1, nonce: bytes = b"12345678", num_logprobs: int | None = None
) -> GrantedRequest:
    """A request with one sequence for each of `ids`, or one empty sequence."""
    logs = tuple(SequenceLog(pack_ids(i)) for i in ids or ((),))
    info = RequestInfo(
        submission=submission(request_id, n=len(logs), num_logprobs=num_logprobs), submitted_ms=1, deadline_ms=None
    )
    return GrantedRequest(info, Grant(epoch, nonce), logs, 0)


def reply(value: T, *, identity: str = "server-1", in_hold: bool = False) -> Reply[T]:
    return Reply(identity, in_hold, 0, value)


def claim_answer(*requests: GrantedRequest, inbox: tuple[InboxEntry, ...] = ()) -> ClaimAnswer:
    return ClaimAnswer(requests, inbox, 1000)


def commit_answer(
    *results: CommitResult,
    inbox: tuple[InboxEntry, ...] = (),
    held: tuple[tuple[str, Grant], ...] | None = None,
    digest: str = "",
) -> CommitAnswer:
    return CommitAnswer(results, inbox, 0, digest, held)


def result(
    request_id: str, code: CommitCode, *lengths: int, epoch: int = 0, end: RequestEnd | None = None
) -> CommitResult:
    return CommitResult(request_id, code, lengths, epoch, end)


def done(*offsets: int) -> RequestEnd:
    return RequestEnd(RequestState.DONE, offsets, (LENGTH,) * len(offsets))
