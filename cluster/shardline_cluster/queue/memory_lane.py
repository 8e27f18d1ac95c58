"""One lane in memory: its plain data, and the moves that every script is made of.

The scripts themselves stand in `memory_leader_scripts`, `memory_router_scripts`, `memory_sweep` and `memory_restore`.
A script is one call without an await, so it is as atomic as Lua.
"""

from dataclasses import dataclass, replace

from shardline_cluster.queue.answers import InboxKind
from shardline_cluster.queue.calls import LaneBounds, SequenceCommit
from shardline_cluster.queue.memory_fair_shares import DrainRate, FairShares
from shardline_cluster.queue.memory_members import MemoryMembers
from shardline_cluster.queue.memory_record import MemoryRecord
from shardline_cluster.queue.published import Published, QueueMessage, Wake
from shardline_cluster.queue.records import Grant, RequestEnd, RequestInfo, RequestState, SequenceLog
from shardline_cluster.queue.tenant_usage import TenantUsage
from shardline_cluster.queue.terms import QueueTerms


@dataclass(frozen=True, slots=True)
class ForgottenRequest:
    """That a request was deleted on demand, for as long as its record would have stayed."""

    forgotten_ms: int
    expires_ms: int


class MemoryLane:
    """Records, members, shares and the hold of one lane."""

    def __init__(self, terms: QueueTerms) -> None:
        self.terms = terms
        self.bounds = LaneBounds()
        self.identity: str | None = None  # of the server that last ran a script here
        self.hold_began_ms = 0
        self.hold_until_ms = 0
        self.records: dict[str, MemoryRecord] = {}
        self.id_by_key: dict[tuple[str, str], str] = {}  # (tenant, idempotency key) → request
        self.detached: dict[str, int] = {}  # request → instant at which its grace ends, unless somebody listens then
        self.members = MemoryMembers()
        self.shares = FairShares()
        self.drain_rate = DrainRate()
        self.usage: dict[str, TenantUsage] = {}  # by tenant
        self.forgotten: dict[str, ForgottenRequest] = {}  # by id
        self.last_number = 0
        self.last_sweep_ms = 0
        self.last_outage_ms = 0  # instant of the first sweep after it
        self.now_ms = 0
        self.outbox: list[tuple[str, QueueMessage]] = []  # (incarnation, message) of the script that runs

    # --- every script begins here --------------------------------------------------------------------------------

    def begin(self, identity: str, now_ms: int) -> None:
        """Reads clock and identity, lets run out what has run out, and begins a hold where the server is another."""
        self.now_ms = now_ms
        self.outbox = []
        for record in [r for r in self.records.values() if r.end and r.expires_ms <= now_ms]:
            self.vanish(record)
        self.forgotten = {i: mark for i, mark in self.forgotten.items() if mark.expires_ms > now_ms}
        if identity != self.identity:
            self.identity = identity
            self._begin_hold()

    def _begin_hold(self) -> None:
        self.hold_began_ms = self.now_ms
        self.hold_until_ms = self.now_ms + self.terms.hold_ms
        self.members.rewrite_leases(self.now_ms + self.terms.lease_ms)

    @property
    def in_hold(self) -> bool:
        """Whether the server may have forgotten what nobody has restored yet."""
        return self.now_ms < self.hold_until_ms

    def held_back(self, record: MemoryRecord) -> bool:
        """Whether the hold forbids to claim or to end this request, since it may be older than the hold."""
        return self.in_hold and record.fresh != self.identity

    # --- a record's life -----------------------------------------------------------------------------------------

    def create(self, info: RequestInfo, *, fresh: bool) -> MemoryRecord:
        """Makes a waiting record."""
        if not any(r.tenant == info.submission.tenant for r in self.alive()):
            self.shares.activate(info.submission.tenant)
        self.last_number += 1
        record = MemoryRecord(
            info=info,
            number=self.last_number,
            fresh=self.identity if fresh else None,
            logs=[SequenceLog()] * info.submission.num_sequences,
        )
        self.records[info.id] = record
        if info.submission.idempotency_key is not None:
            self.id_by_key.setdefault((record.tenant, info.submission.idempotency_key), info.id)
        return record

    def give(self, record: MemoryRecord, owner: str, grant: Grant) -> None:
        """Gives a request to a leader and tells its listeners."""
        record.state, record.owner, record.grant, record.epoch = RequestState.RUNNING, owner, grant, grant.epoch
        record.claimed = record.lengths
        self.publish(record)

    def hand_back(self, record: MemoryRecord) -> None:
        """Lets a request wait for another owner, with the tokens that it has."""
        record.state, record.owner, record.grant = RequestState.WAITING, None, None
        self.wake_one()

    def end(
        self,
        record: MemoryRecord,
        end: RequestEnd,
        *,
        appended: tuple[SequenceCommit, ...] = (),
        told_owner: bool = False,
        may_be_counted: bool = False,
    ) -> None:
        """Writes the one end of a request, counts it, tells its owner and its listeners.

        `may_be_counted`: this end may have been written and counted before, and its record have run out.
        """
        assert record.end is None, "an end is written once"
        if record.owner is not None and not told_owner:
            self.tell(record.owner, InboxKind.ENDED, record.id)
        record.state, record.owner, record.grant, record.end = end.state, None, None, end
        self.detached.pop(record.id, None)
        self.keep_anew(record)
        self.shares.settle(record, self.weight(record.tenant))
        if not may_be_counted:
            known = self.usage.get(record.tenant, TenantUsage(tenant=record.tenant))
            self.usage[record.tenant] = known.with_end(record.info.submission, end)
        self.publish(record, appended)

    def end_now(self, record: MemoryRecord, state: RequestState, error: str = "") -> RequestEnd:
        """The end of a request whose logs are frozen as they stand."""
        return RequestEnd(state, record.lengths, record.finishes, error, self.now_ms)

    def keep_anew(self, record: MemoryRecord) -> None:
        """Begins the retention of an ended record."""
        record.expires_ms = self.now_ms + self.keep_ms(record)

    def keep_ms(self, record: MemoryRecord) -> int:
        """How long a record stays after its end."""
        submission = record.info.submission
        return submission.retention_ms if submission.store else self.terms.unstored_ms

    def complete_finishes(self, record: MemoryRecord, end: RequestEnd) -> None:
        """Notes in the logs how a restored end says that they finished."""
        record.logs = [replace(log, finish=f or log.finish) for log, f in zip(record.logs, end.finishes, strict=True)]

    def vanish(self, record: MemoryRecord) -> None:
        """Deletes record, logs and idempotency key."""
        del self.records[record.id]
        self.detached.pop(record.id, None)
        key = (record.tenant, record.info.submission.idempotency_key or "")
        if self.id_by_key.get(key) == record.id:
            del self.id_by_key[key]

    # --- reading -------------------------------------------------------------------------------------------------

    def find(self, request_id: str, tenant: str) -> MemoryRecord | None:
        """The tenant's record of this id."""
        record = self.records.get(request_id)
        return record if record is not None and record.tenant == tenant else None

    def alive(self) -> list[MemoryRecord]:
        """Records without an end."""
        return [r for r in self.records.values() if r.end is None]

    def held(self, incarnation: str) -> list[MemoryRecord]:
        """What a leader owns, by id."""
        return sorted((r for r in self.records.values() if r.owner == incarnation), key=lambda r: r.id)

    def waiting(self, tenant: str | None = None) -> list[MemoryRecord]:
        """Requests without tokens that wait, in the order in which a tenant's own are taken."""
        found = [r for r in self.records.values() if r.waiting and tenant in (None, r.tenant)]
        return sorted(found, key=lambda r: (r.info.submission.priority, r.number))

    def handed_back(self) -> list[MemoryRecord]:
        """Requests with tokens that wait, in the order in which they are taken."""
        return sorted((r for r in self.records.values() if r.handed_back), key=lambda r: r.number)

    def position(self, record: MemoryRecord) -> int | None:
        """How many requests wait before this one; None unless it waits."""
        if record.handed_back:
            return self.handed_back().index(record)
        return len(self.handed_back()) + self.waiting(record.tenant).index(record) if record.waiting else None

    def weight(self, tenant: str) -> float:
        """The tenant's share in relation to others."""
        return dict(self.bounds.tenant_weights).get(tenant, 1.0)

    # --- telling -------------------------------------------------------------------------------------------------

    def tell(self, incarnation: str, kind: InboxKind, request_id: str = "") -> None:
        """Puts a message into a leader's inbox."""
        self.members.leader(incarnation).put(kind, request_id, self.now_ms)
        self.outbox.append((incarnation, Wake()))

    def publish(self, record: MemoryRecord, appended: tuple[SequenceCommit, ...] = ()) -> None:
        """Tells the routers that listen what is new."""
        assert self.identity is not None, "a script has begun"
        message = Published(self.identity, record.id, record.epoch, appended, record.end)
        self.outbox.extend((router, message) for router in record.listeners)

    def wake_one(self) -> None:
        """Tells one leader with nothing to do that there is work."""
        incarnation = self.members.take_idle()
        if incarnation is not None:
            self.outbox.append((incarnation, Wake()))
