"""Short ways to say a call in a test: submissions, a leader that claims and commits by hand, packed tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shardline_cluster.queue.answers import ClaimAnswer, CommitAnswer, CommitResult, GrantedRequest, Snapshot
from shardline_cluster.queue.calls import ClaimCall, CommitCall, CommitEntry, Member, MemberRole, SequenceCommit
from shardline_cluster.queue.log_encoding import pack_ids, unpack_ids
from shardline_cluster.queue.records import (
    DisconnectAction,
    Grant,
    RequestInfo,
    SequenceFinish,
    SequenceLog,
    Submission,
)
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from tests.cluster.queue.lane_harness import LaneHarness

STOP = SequenceFinish("stop")
TENANT = "tenant"
ROUTER = Member(incarnation="router-1", role=MemberRole.ROUTER)


def a_submission(identity: str, number: int = 1, **changes: Any) -> Submission:
    """A plain request; `number` makes its id."""
    plain = Submission(
        id=f"lane-{number:032x}",
        drawn=identity,
        payload=b"payload",
        tenant=TENANT,
        priority=0,
        num_sequences=1,
        prompt_tokens=10,
        max_tokens=10,
        num_logprobs=None,
        timeout_ms=None,
        max_queue_ms=3_600_000,
        on_disconnect=DisconnectAction.GRACE,
        grace_ms=30_000,
        retention_ms=600_000,
        store=True,
        idempotency_key=None,
        body_digest="00",
        background=False,
    )
    return replace(plain, **changes)


async def submit(harness: LaneHarness, number: int = 1, router: str = "router-1", **changes: Any) -> RequestInfo:
    """Submits a plain request that must be accepted; `router` listens with number 1."""
    submission = a_submission(await harness.identity(), number, **changes)
    answer = (await harness.queue().submit(router, 1, submission)).value
    assert hasattr(answer, "info"), f"{answer} is no acceptance"
    info: RequestInfo = answer.info
    return info


async def look(harness: LaneHarness, info: RequestInfo) -> Snapshot:
    """The record, which must be there."""
    snapshot = (await harness.queue().look(info.id, info.submission.tenant)).value
    assert isinstance(snapshot, Snapshot), f"{info.id} is {snapshot}"
    return snapshot


def log_ids(logs: Sequence[SequenceLog], sequence: int = 0) -> list[int]:
    """Token ids of one sequence."""
    return list(unpack_ids(logs[sequence].ids))


def a_log(*ids: int) -> SequenceLog:
    """A log without log-probabilities or finish."""
    return SequenceLog(pack_ids(ids))


def some(offset: int, ids: Sequence[int], finish: SequenceFinish | None = None, sequence: int = 0) -> SequenceCommit:
    """New tokens of a sequence."""
    return SequenceCommit(sequence, offset, pack_ids(ids), b"", finish)


class HandLeader:
    """A leader whose calls a test makes one by one. It remembers its last claim, to send it again."""

    def __init__(self, queue: RequestQueue, incarnation: str = "leader-1") -> None:
        self.queue = queue
        self.incarnation = incarnation
        self.inbox_seen = 0
        self._numbers = itertools.count(1)
        self.last_claim: ClaimCall | None = None

    async def register(self) -> None:
        await self.queue.register(Member(incarnation=self.incarnation, role=MemberRole.LEADER, numerics_id="n1"))

    async def claim(self, free_slots: int = 8, free_tokens: int = 100_000) -> tuple[GrantedRequest, ...]:
        number = next(self._numbers)
        self.last_claim = ClaimCall(
            incarnation=self.incarnation,
            number=number,
            nonce=f"{self.incarnation[-3:]:>3}{number:05}".encode(),
            free_slots=free_slots,
            free_tokens=free_tokens,
            inbox_seen=self.inbox_seen,
        )
        return (await self.claim_again()).granted

    async def claim_again(self) -> ClaimAnswer:
        assert self.last_claim is not None, "claim first"
        return (await self.queue.claim(self.last_claim)).value

    async def claim_one(self) -> GrantedRequest:
        granted = await self.claim(free_slots=1)
        assert len(granted) == 1, f"one request was to be granted, not {len(granted)}"
        return granted[0]

    async def commit_all(self, *entries: CommitEntry, list_held: bool = False) -> Reply[CommitAnswer]:
        call = CommitCall(
            incarnation=self.incarnation, inbox_seen=self.inbox_seen, entries=entries, list_held=list_held
        )
        return await self.queue.commit(call)

    async def beat(self) -> CommitAnswer:
        return (await self.commit_all(list_held=True)).value

    async def commit(self, granted: GrantedRequest, *sequences: SequenceCommit, error: str = "") -> CommitResult:
        entry = CommitEntry(granted.info.id, granted.grant, sequences, error)
        return (await self.commit_all(entry)).value.results[0]

    async def release(self, *granted: GrantedRequest) -> None:
        await self.queue.release(self.incarnation, [(g.info.id, g.grant) for g in granted])


def grant_of(granted: GrantedRequest) -> tuple[str, Grant]:
    """As `held` lists it."""
    return (granted.info.id, granted.grant)
