"""A leader's books for tests: `HeldRequests`, and a queue that answers as each test says."""

from collections.abc import Sequence

from shardline_cluster.queue.answers import (
    CommitCode,
    CommitResult,
    GrantedRequest,
    InboxEntry,
)
from shardline_cluster.queue.calls import CommitCall, SequenceCommit
from shardline_cluster.queue.held_digest import held_digest
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import Grant
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.changes import Changes
from shardline_cluster.replica.held_requests import HeldRequests
from tests.cluster.replica.queue_replies import (
    LENGTH,
    claim_answer,
    commit_answer,
    done,
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


def said(call: CommitCall) -> dict[str, list[tuple[int, tuple[int, ...], bool]]]:
    """Offset, ids and whether there is a finish, of each sequence that a commit names."""
    return {entry.id: [_sequence(s) for s in entry.sequences] for entry in call.entries}


def _sequence(commit: SequenceCommit) -> tuple[int, tuple[int, ...], bool]:
    return commit.offset, unpack_ids(commit.ids), commit.finish is not None


def reasons(changes: Changes) -> Sequence[str]:
    """Which requests were dropped, and why."""
    return [f"{d.request.id}: {d.reason}" for d in changes.dropped]
