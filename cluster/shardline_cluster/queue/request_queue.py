"""The queue and token log of one lane, as routers, leaders and the controller see it.

Every method is one script: atomic, idempotent, safe to resend with the same arguments. A method makes one attempt; a
lost connection or a late answer raises `QueueUnavailableError`, and the caller resends, since only it knows what else
has happened meanwhile. Every reply tells the server's identity: a change means that the server may have forgotten its
last writes, and is to be handled before anything else in the reply (docs/protocol.md, "When Redis forgets").

Two implementations stand side by side, `RedisRequestQueue` and `MemoryRequestQueue`, under one suite of tests.

Where docs/protocol.md leaves a choice, both decide alike:

- A call that no honest caller makes (a sequence that the request has not, half an id, log-probabilities of another
  width than the request's, a nonce that is not 8 bytes) raises `InvalidCallError` and changes nothing, whichever of its
  entries was wrong.
- An id that is there already is a `Duplicate`, also for the submit that brought it, resent. Only the submit that makes
  the record registers its router as listener. Order of tests: duplicate or conflict, too large, bounds.
- Submit and attach give a router without a lease one, so that a listener never outlives its router unnoticed; only
  register and sweep prolong it.
- Sizes: `TooLarge.tokens` is prompt + max_tokens; a waiting request counts prompt + num_sequences × max_tokens tokens
  and its payload's bytes against the bounds. A claim needs a slot for each unfinished sequence, and of `free_tokens`
  the prompt, the longest unfinished log (max_tokens of it at most) and one more. A head that does not fit is passed
  over for this claim, and its tenant with it.
- Position: the rank among `handed_back` for a request with tokens; otherwise the size of `handed_back` and the rank in
  the tenant's own queue.
- A request is DONE with the finish of its last sequence. What a hold forbids to end gets no finish recorded at all: ids
  are taken, the answer is HELD. Hence a log may end in a stop without saying so, and whoever claims it looks.
  A finish before the log's end, or ids past a recorded finish, are CONFLICT. A finish that is recorded stays.
- A resent finishing commit is known by its grant, and by each sequence's offset + ids and finish being the end's.
- Published is what was appended: a resend that appends nothing publishes nothing. An end travels with the last ids;
  a claim publishes an empty message with the new epoch.
- `held_digest` is that of `held_digest.py`. Inbox numbers are max(last + 1, now_ms): they rise over a rollback too.
- Longest wait in the queue: from the acceptance, while a request was never claimed and has no tokens.
- Fruitless claims: +1 with a claim, −1 with a release by the owner or a drained exit, 0 with a new token; looked at
  when a lease is reclaimed.
- A restore brings logs from token 0 (paging is the implementation's own affair). Without an end it records finishes
  only as long as one sequence stays open. Finish and length that do not fit are DIVERGED.
- `store=False`: the record goes `unstored_ms` after its end. A record past its retention is absent for every script,
  deleted or not. Its ages are the script's clock's.
- An end by the owner's own commit is told in the result, not in the inbox as well.
- An end is counted for its tenant where it is written. One that is restored after its own retention is written and not
  counted: it may have been, before its record ran out.
- A forget marks the request for as long as its record would have stayed: a restore of what was submitted before it is
  FORGOTTEN, whether the id has come again or not.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from shardline_cluster.queue.answers import (
    ClaimAnswer,
    CommitAnswer,
    Ended,
    ForgetCode,
    Gone,
    LaneView,
    OnHold,
    RestoreAnswer,
    Snapshot,
    SubmitAnswer,
)
from shardline_cluster.queue.calls import ClaimCall, CommitCall, DeadMember, LaneBounds, Member, RestoreCall
from shardline_cluster.queue.published import QueueMessage
from shardline_cluster.queue.records import Grant, Submission
from shardline_cluster.queue.tenant_usage import TenantUsage
from shardline_cluster.queue.terms import QueueTerms

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Reply(Generic[T_co]):
    """What a script answered, and by which server."""

    identity: str  # the server's run id and the lane's birth in it
    in_hold: bool
    now_ms: int  # the server's clock
    value: T_co


class RequestQueue(Protocol):
    """One lane. All methods raise QueueUnavailableError where no answer came."""

    @property
    def lane(self) -> str:
        """Name of the lane."""
        ...

    @property
    def terms(self) -> QueueTerms:
        """The periods by which this lane lives."""
        ...

    async def register(self, member: Member) -> Reply[None]:
        """Gives a leader or router its lease, or renews it."""
        ...

    async def configure(self, bounds: LaneBounds) -> Reply[None]:
        """Sets what the lane takes in."""
        ...

    async def submit(self, router: str, listener_number: int, submission: Submission) -> Reply[SubmitAnswer]:
        """Accepts a request, with `router` listening unless it is a background request."""
        ...

    async def claim(self, call: ClaimCall) -> Reply[ClaimAnswer]:
        """Grants waiting requests to a leader; renews its lease; sweeps a little."""
        ...

    async def commit(self, call: CommitCall) -> Reply[CommitAnswer]:
        """Appends a step's tokens, publishes them, renews the lease."""
        ...

    async def release(self, incarnation: str, grants: Sequence[tuple[str, Grant]]) -> Reply[None]:
        """Hands requests back with the tokens that they have. Counts nothing."""
        ...

    async def cancel(self, request_id: str, tenant: str) -> Reply[Ended | OnHold | Gone]:
        """Ends a request now, or tells the end that it has."""
        ...

    async def attach(
        self, router: str, listener_number: int, request_id: str, tenant: str, *, held: Sequence[int] = ()
    ) -> Reply[Snapshot | OnHold | Gone]:
        """Registers a listener, then reads record and logs, with nothing falling between.

        `held`: tokens of each sequence that this very server has shown before; the snapshot's logs begin after them.
        """
        ...

    async def detach(self, router: str, listener_number: int, request_id: str) -> Reply[None]:
        """Takes a listener away; ignored where a newer attach of this router has a higher number."""
        ...

    async def look(self, request_id: str, tenant: str) -> Reply[Snapshot | OnHold | Gone]:
        """Reads record and logs without listening."""
        ...

    async def sweep(self, router: str | None, dead: Sequence[DeadMember] = ()) -> Reply[None]:
        """Ends what is over: leases, deadlines, graces, waits, retentions. Renews the router's lease."""
        ...

    async def restore(self, call: RestoreCall) -> Reply[RestoreAnswer]:
        """Gives a server back what it may have forgotten."""
        ...

    async def forget(self, request_id: str, tenant: str) -> Reply[ForgetCode]:
        """Deletes an ended request before its retention is over."""
        ...

    async def drain(self, incarnation: str) -> Reply[None]:
        """Puts a drain message into a leader's inbox."""
        ...

    async def view(self) -> Reply[LaneView]:
        """Counters and members of the lane, for people and the controller."""
        ...

    async def usage(self) -> Reply[tuple[TenantUsage, ...]]:
        """What the lane's ended requests have used, in order of tenants."""
        ...

    def listen(self, incarnation: str) -> AsyncIterator[QueueMessage]:
        """Messages for a leader or router, for as long as the caller iterates.

        Yields `Subscribed` after each confirmation by the server, the first and every later one: it reconnects by
        itself. A message that was published while the connection was away is lost; the log has it.
        """
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...
