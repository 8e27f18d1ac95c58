"""The leader's side of the token log's protocol, without input or output: what is held, what to say, what answers mean.

The shell around it sends the calls that come out of here, each until it is answered, and hands the answers back. Three
rules hold it together:

- What a reply tells first is its server's identity. Another one than before means that the server may have forgotten:
  every held request is named in the very next commit, every recent end is restored, whatever else the reply says.
- At most one call is in flight about one request: one commit at a time, and what a restore is about is in no commit.
- Only what the log holds exists. `acked` moves back as willingly as forward.

All instants are seconds of one monotonic clock that the shell reads.
"""

from shardline_cluster.queue.answers import (
    ClaimAnswer,
    CommitAnswer,
    CommitCode,
    CommitResult,
    InboxEntry,
    InboxKind,
    RestoreAnswer,
    RestoreCode,
)
from shardline_cluster.queue.calls import ClaimCall, CommitCall, CommitEntry, RestoreCall
from shardline_cluster.queue.held_digest import held_digest
from shardline_cluster.queue.records import Grant, RequestEnd, SequenceFinish
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.changes import Changes, Dropped
from shardline_cluster.replica.commit_batch import commit_batch, commit_due_at, is_due
from shardline_cluster.replica.commit_verdict import Verdict, verdict
from shardline_cluster.replica.errands import Errands
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.recent_ends import RecentEnds

HELD_RETRY_S = 0.25  # pause between two tries to finish during a hold


class HeldRequests:
    """All that one incarnation of a leader holds and remembers."""

    def __init__(self, *, incarnation: str, terms: QueueTerms) -> None:
        self._incarnation = incarnation
        self._heartbeat_s = terms.heartbeat_ms / 1000
        self._held: dict[str, HeldRequest] = {}
        self._recent = RecentEnds(lately_s=terms.lately_ms / 1000)
        self._identity: str | None = None
        self._claims = 0
        self._claim: ClaimCall | None = None
        self._errands = Errands(incarnation)
        self._inbox_seen = 0
        self._list_held = False
        self._hurry = False
        self._last_commit = float("-inf")
        self._draining = False

    # --- what the shell asks -----------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether it was told to drain, by `begin_drain` or through the inbox."""
        return self._draining

    @property
    def num_held(self) -> int:
        """Requests that are granted to this leader, as far as it knows."""
        return len(self._held)

    @property
    def num_uncommitted(self) -> int:
        """Tokens that were generated and are not known to be in the log."""
        return sum(h.num_uncommitted for h in self._held.values())

    def has_unsaid(self, now: float) -> bool:
        """Whether a commit has something to say by now, or is owed a question."""
        return any(is_due(h, now) for h in self._held.values())

    @property
    def has_errands(self) -> bool:
        """Whether restores or releases wait to be sent."""
        return self._errands.waiting

    @property
    def owes_nothing(self) -> bool:
        """Whether nothing is held and no call is out that could bring or hand back something."""
        return not (self._held or self._claim or self._errands.pending)

    def get(self, key: str) -> HeldRequest | None:
        """The held request that has this name in the engine."""
        held = self._held.get(key.partition("#")[0])
        return held if held is not None and held.key == key else None

    # --- what the engine brought -------------------------------------------------------------------------------

    def record(
        self, key: str, sequence: int, *, ids: bytes, logprobs: bytes = b"", finish: SequenceFinish | None = None
    ) -> None:
        """Takes new tokens; those of a request that was dropped meanwhile are dropped too."""
        held = self.get(key)
        if held is not None:
            held.record(sequence, ids=ids, logprobs=logprobs, finish=finish)

    def fail(self, key: str, error: str) -> None:
        """Notes that a request cannot be computed: its next commit ends it as FAILED."""
        held = self.get(key)
        if held is not None:
            held.error = held.error or error

    def hurry(self) -> None:
        """Makes a commit due at once: there may be mail, or a new server."""
        self._hurry = True

    def begin_drain(self) -> None:
        """From now on everything that is granted is handed back at once."""
        self._draining = True

    def release_all(self) -> None:
        """Hands everything back, except what a restore is about: that follows its answer."""
        for held in [h for h in self._held.values() if not h.restoring]:
            self._release(held)

    # --- calls -------------------------------------------------------------------------------------------------

    def next_claim(self, *, free_slots: int, free_tokens: int, nonce: bytes) -> ClaimCall:
        """A new claim. The one before must have been answered."""
        assert self._claim is None, "a claim is in flight already"
        self._claims += 1
        self._claim = ClaimCall(
            incarnation=self._incarnation,
            number=self._claims,
            nonce=nonce,
            free_slots=free_slots,
            free_tokens=free_tokens,
            inbox_seen=self._inbox_seen,
        )
        return self._claim

    def commit_due_in(self, now: float) -> float:
        """Seconds until the next commit should go out, 0 for at once."""
        if self._hurry:
            return 0.0
        heartbeat_at = self._last_commit + self._heartbeat_s
        return max(0.0, min(heartbeat_at, commit_due_at(self._held.values(), heartbeat_at=heartbeat_at)) - now)

    def next_commit(self, now: float) -> CommitCall:
        """Everything that the log lacks, within bounds. The commit before must have been answered."""
        self._hurry, self._last_commit = False, now
        return CommitCall(
            incarnation=self._incarnation,
            inbox_seen=self._inbox_seen,
            entries=commit_batch(self._held.values(), now),
            list_held=self._list_held,
        )

    def take_restores(self) -> list[RestoreCall]:
        """Restores that are to be sent now, each until it is answered."""
        return self._errands.take_restores()

    def take_releases(self) -> list[tuple[str, Grant]]:
        """Grants that are to be handed back now, until it is answered."""
        return self._errands.take_releases()

    # --- answers -----------------------------------------------------------------------------------------------

    def answered(self, identity: str, now: float) -> None:
        """Takes note of which server answered; every answer below does this first."""
        known, self._identity = self._identity, identity
        if known in (None, identity):
            self._recent.answered_by_same_server(now)
            return
        self._recent.answered_by_new_server(now)
        for end in self._recent.all():
            self._errands.restore(end)
        self._hurry = self._list_held = True
        self._inbox_seen = 0  # the new server may have gone back to lower numbers
        for held in self._held.values():
            held.doubt()

    def claimed(self, reply: Reply[ClaimAnswer], now: float) -> Changes:
        """Takes what the claim in flight brought."""
        self.answered(reply.identity, now)
        self._claim = None
        changes = Changes()
        for granted in reply.value.granted:
            known = self._held.get(granted.info.id)
            if known is not None and known.grant == granted.grant:
                continue
            if known is not None:
                self._drop(known, "a later claim has another grant", changes)
            held = self._held[granted.info.id] = HeldRequest.of(granted, seen=reply.identity)
            if self._draining:
                self._release(held)
            else:
                changes.started.append(held)
        self._read(reply.value.inbox)
        return changes

    def committed(self, call: CommitCall, reply: Reply[CommitAnswer], now: float) -> Changes:
        """Takes the answer to the commit in flight."""
        self.answered(reply.identity, now)
        changes = Changes()
        for entry, result in zip(call.entries, reply.value.results, strict=True):
            held = self._held.get(entry.id)
            if held is not None and held.grant == entry.grant:
                self._take_result(held, entry, result, reply=reply, now=now, changes=changes)
        self._reconcile(reply.value)
        self._read(reply.value.inbox)
        return changes

    def restored(self, call: RestoreCall, reply: Reply[RestoreAnswer], now: float) -> Changes:
        """Takes the answer to a restore."""
        self.answered(reply.identity, now)
        self._errands.restored()
        changes = Changes()
        held = self._held.get(call.info.id)
        if call.grant is None:
            self._restored_end(call, reply.value)
        elif held is not None and held.grant == call.grant:
            self._restored_grant(held, call, reply, changes)
        return changes

    def released(self, grants: list[tuple[str, Grant]], identity: str, now: float) -> None:
        """Takes the answer to a release."""
        self.answered(identity, now)
        self._errands.released(grants)

    # --- inside ------------------------------------------------------------------------------------------------

    def _take_result(
        self,
        held: HeldRequest,
        entry: CommitEntry,
        result: CommitResult,
        *,
        reply: Reply[CommitAnswer],
        now: float,
        changes: Changes,
    ) -> None:
        held.ask = False
        seen = held.seen == reply.identity
        if result.code is not CommitCode.GONE:
            held.seen = reply.identity
        match verdict(result, epoch=held.grant.epoch, in_hold=reply.in_hold, seen=seen):
            case Verdict.TAKEN:
                held.taken(entry)
                if result.end is not None:
                    self._ended(held, result.end, now=now, changes=changes)
            case Verdict.WAIT:
                held.put_back(result.lengths)
                held.not_before = now + HELD_RETRY_S
            case Verdict.RESEND:
                held.put_back(result.lengths)
            case Verdict.ENDED:
                assert result.end is not None, "the answer ENDED brings the end"
                self._ended(held, result.end, now=now, changes=changes)
            case Verdict.ADOPT:
                self._ask_for_adoption(held)
            case Verdict.RELEASE:
                self._release(held)
                changes.dropped.append(Dropped(held, Verdict.RELEASE.value))
            case lost:
                self._drop(held, lost.value, changes)

    def _ended(self, held: HeldRequest, end: RequestEnd, *, now: float, changes: Changes) -> None:
        if held.reaches(end):  # else another one wrote the rest: who has all of it tells this end to a new server
            self._recent.remember(held.info, held.logs_until(end), end, now=now)
        self._drop(held, end.state.value, changes)

    def _drop(self, held: HeldRequest, reason: str, changes: Changes) -> None:
        del self._held[held.id]
        changes.dropped.append(Dropped(held, reason))

    def _release(self, held: HeldRequest) -> None:
        del self._held[held.id]
        self._errands.release(held.id, held.grant)

    def _ask_for_adoption(self, held: HeldRequest) -> None:
        held.restoring = True
        self._errands.restore(held)

    def _restored_grant(
        self, held: HeldRequest, call: RestoreCall, reply: Reply[RestoreAnswer], changes: Changes
    ) -> None:
        code = reply.value.code
        held.restoring = False
        if code is RestoreCode.OK:
            held.seen = reply.identity
            held.restored(call.logs)
        elif code is RestoreCode.SHORT:
            self._ask_for_adoption(held)
        else:
            self._drop(held, f"the server did not adopt its grant ({code.value})", changes)

    def _restored_end(self, call: RestoreCall, answer: RestoreAnswer) -> None:
        recent = self._recent.get(call.info.id)
        if answer.code is RestoreCode.SHORT and recent is not None:
            self._errands.restore(recent)

    def _reconcile(self, answer: CommitAnswer) -> None:
        """Compares what the server believes to be held here with what is; asks for the list where they differ."""
        if answer.held is None:
            quiet = not (self._claim or self._errands.pending)
            own = held_digest((h.id, h.grant) for h in self._held.values())
            self._list_held = self._list_held or (quiet and own != answer.held_digest)
            return
        self._list_held = False
        for request_id, grant in answer.held:
            self._account_for(request_id, grant)
        listed = set(answer.held)
        for held in self._held.values():
            held.ask = held.ask or ((held.id, held.grant) not in listed and not held.restoring)

    def _account_for(self, request_id: str, grant: Grant) -> None:
        """What the server lists and nobody here knows is told its end, or handed back."""
        in_flight = self._claim is not None and self._claim.nonce == grant.nonce
        if request_id in self._held or in_flight or self._errands.is_releasing(request_id, grant):
            return
        recent = self._recent.get(request_id)
        if recent is not None:
            self._errands.restore(recent)
        else:
            self._errands.release(request_id, grant)

    def _read(self, inbox: tuple[InboxEntry, ...]) -> None:
        for entry in inbox:
            self._inbox_seen = max(self._inbox_seen, entry.number)
            if entry.kind is InboxKind.DRAIN:
                self._draining = True
            elif entry.id in self._held:
                self._held[entry.id].ask = True  # its next commit will say how it ended
