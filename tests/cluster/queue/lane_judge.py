"""What must never be seen, whatever fails: checked after every call that a server has executed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardline_cluster.queue.answers import ClaimAnswer, RestoreAnswer, RestoreCode, Snapshot
from shardline_cluster.queue.log_encoding import ID_BYTES, unpack_ids
from shardline_cluster.queue.records import DisconnectAction, RequestEnd, RequestInfo, RequestState
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.tenant_usage import TenantUsage
from shardline_cluster.queue.terms import QueueTerms
from tests.cluster.queue.lane_calls import TENANT
from tests.cluster.queue.leader_process import LeaderProcess, Tokens
from tests.cluster.queue.router_process import Client, RouterProcess


class ViolationError(AssertionError):
    """Something was seen that must never be seen."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """To whom a request was given, and how long its logs were then."""

    incarnation: str
    lengths: tuple[int, ...]


@dataclass(slots=True)
class Seen:
    """What the lane showed last. Goes back with the server."""

    shots: dict[str, Snapshot] = field(default_factory=dict)
    owners: dict[str, Ownership] = field(default_factory=dict)

    def copy(self) -> "Seen":
        """The same, for a server that may go back to it."""
        return Seen(dict(self.shots), dict(self.owners))


@dataclass(slots=True)
class LaneJudge:
    """Knows everything that happened. `processes` is the world's own, by slot."""

    terms: QueueTerms
    tokens: Tokens
    processes: Mapping[str, LeaderProcess | RouterProcess | None]
    clients: list[Client]
    seen: Seen = field(default_factory=Seen)
    faults: int = 0
    unwell: set[str] = field(default_factory=set)  # incarnations that crashed or paused once
    told: dict[str, RequestEnd] = field(default_factory=dict)  # the first end of a request that anybody was told
    accepted: dict[str, RequestInfo] = field(default_factory=dict)
    asked_to_cancel: set[str] = field(default_factory=set)
    in_hold: bool = False

    @property
    def strict(self) -> bool:
        """Whether at most one thing has failed: then nothing may be lost."""
        return self.faults <= 1

    # --- the lane ------------------------------------------------------------------------------------------------

    def judge(self, kind: str, caller: str, reply: Reply[Any], shots: dict[str, Snapshot], now_ms: int) -> None:
        """A call was executed; `shots` is every record afterwards."""
        self.in_hold = reply.in_hold
        for request_id, shot in shots.items():
            before = self.seen.shots.get(request_id)
            self._judge_log(request_id, before, shot, restored=kind == "restore")
            self._judge_owner(kind, request_id, before, shot)
            self._judge_end(kind, before, shot, now_ms)
        for request_id in self.seen.shots.keys() - shots.keys():
            raise ViolationError(f"lost: the record of {request_id} is gone before its retention is over")
        self._note_owners(kind, caller, reply.value, shots)
        self.seen.shots = shots

    def _judge_log(self, request_id: str, before: Snapshot | None, shot: Snapshot, *, restored: bool) -> None:
        for sequence, log in enumerate(shot.logs):
            old = before.logs[sequence].ids if before else b""
            if restored and shot.end is not None:
                old = old[: shot.end.offsets[sequence] * ID_BYTES]  # tokens of a forgotten end are not read any more
            if not log.ids.startswith(old):
                raise ViolationError(f"append-only: {request_id} was {unpack_ids(old)}, is {unpack_ids(log.ids)}")
            ids = unpack_ids(log.ids)
            if not self.tokens.fits(ids, len(old) // ID_BYTES, f"{request_id}/{sequence}"):
                raise ViolationError(f"mixed: {request_id} holds {ids} of several generations")

    def _judge_owner(self, kind: str, request_id: str, before: Snapshot | None, shot: Snapshot) -> None:
        owner = self.seen.owners.get(request_id)
        if before is None or owner is None or before.state is not RequestState.RUNNING:
            return
        lengths = tuple(log.num_tokens for log in before.logs)
        if shot.attempts > before.attempts and (self._well(owner.incarnation) or lengths != owner.lengths):
            raise ViolationError(f"attempt: {request_id} counts a crash of {owner} at lengths {lengths}")
        taken = shot.state is RequestState.WAITING or shot.epoch != before.epoch
        if kind in ("sweep", "claim") and taken and self._well(owner.incarnation):
            raise ViolationError(f"robbed: {request_id} was taken from healthy {owner.incarnation}")

    def _judge_end(self, kind: str, before: Snapshot | None, shot: Snapshot, now_ms: int) -> None:
        if before is not None and before.end is not None and before.end != shot.end:
            raise ViolationError(f"two ends: {before.end} became {shot.end}")
        if shot.end is None or (before is not None and before.end is not None):
            return
        if shot.state is RequestState.FAILED:
            raise ViolationError(f"failed: {shot.info.id}, {shot.end.error}")
        if shot.state is RequestState.EXPIRED and (shot.info.deadline_ms or now_ms + 1) > now_ms:
            raise ViolationError(f"expired early: {shot.info} at {now_ms}")
        if shot.state is RequestState.CANCELLED and kind != "restore" and self.strict:
            self._judge_cancelled(shot.info, kind, now_ms)

    def _judge_cancelled(self, info: RequestInfo, kind: str, now_ms: int) -> None:
        if info.id in self.asked_to_cancel:
            return
        if info.submission.on_disconnect is DisconnectAction.CONTINUE:
            raise ViolationError(f"cancelled: {info.id} was to go on")
        for router in self._routers():
            if router.streams(info.id) and router.incarnation not in self.unwell:
                raise ViolationError(f"cancelled: {info.id} ended while {router.incarnation} streams it")
        for client in self.clients:
            orphaned = client.info is not None and client.info.id == info.id and client.orphaned_ms is not None
            if orphaned and now_ms - (client.orphaned_ms or 0) < 2 * self.terms.lease_ms and not client.over:
                raise ViolationError(f"cancelled by a {kind}: {info.id}'s client had no two leases to come back")

    def _note_owners(self, kind: str, caller: str, answer: object, shots: dict[str, Snapshot]) -> None:
        if isinstance(answer, ClaimAnswer):
            for granted in answer.granted:
                self._judge_grant(granted.info.id, caller)
                lengths = tuple(log.num_tokens for log in granted.logs)
                self.seen.owners.setdefault(granted.info.id, Ownership(caller, lengths))
                if shots[granted.info.id].epoch != self._epoch_before(granted.info.id):
                    self.seen.owners[granted.info.id] = Ownership(caller, lengths)
        if isinstance(answer, RestoreAnswer) and answer.code is RestoreCode.OK:
            for request_id, shot in shots.items():
                if shot.state is RequestState.RUNNING and shot.epoch != self._epoch_before(request_id):
                    self.seen.owners[request_id] = Ownership(caller, tuple(log.num_tokens for log in shot.logs))

    def _epoch_before(self, request_id: str) -> int | None:
        before = self.seen.shots.get(request_id)
        return before.epoch if before is not None and before.state is RequestState.RUNNING else None

    def _judge_grant(self, request_id: str, to: str) -> None:
        for process in self.processes.values():
            if not isinstance(process, LeaderProcess) or process.incarnation == to or not self.strict:
                continue
            holds = any(held.id == request_id for held in process.running.values())
            if holds and process.incarnation not in self.unwell:
                raise ViolationError(f"robbed: {request_id} was given to {to} while {process.incarnation} runs it")

    def _routers(self) -> list[RouterProcess]:
        return [p for p in self.processes.values() if isinstance(p, RouterProcess)]

    def _well(self, incarnation: str) -> bool:
        alive = any(p is not None and p.incarnation == incarnation for p in self.processes.values())
        return alive and incarnation not in self.unwell

    # --- what clients see ----------------------------------------------------------------------------------------

    def accept(self, client: Client, info: RequestInfo) -> None:
        """A client was told that its request is accepted."""
        client.info = info
        client.got = [[] for _ in range(info.submission.num_sequences)]
        self.accepted[info.id] = info

    def deliver(self, client: Client, sequence: int, ids: tuple[int, ...]) -> None:
        """A client was given tokens."""
        assert client.info is not None, "accepted before delivered"
        got = client.got[sequence]
        if client.end is not None:
            raise ViolationError(f"after the end: client {client.number} got {ids} after {client.end}")
        begin = len(got)
        got += ids
        if not self.tokens.fits(tuple(got), begin, f"{client.info.id}/{sequence}"):
            raise ViolationError(f"mixed: client {client.number} was shown {got}")
        end = self.told.get(client.info.id)
        if end is None or end.state is RequestState.DONE or not self.strict or self.in_hold:
            return
        if len(got) > end.offsets[sequence]:
            raise ViolationError(f"after the end: client {client.number} sees {got} past the told {end}")

    def tell_end(self, client: Client, end: RequestEnd) -> None:
        """A client was told its end."""
        assert client.info is not None, "accepted before ended"
        client.end = end
        lengths = [len(got) for got in client.got]
        too_long = lengths != list(end.offsets) and end.state is RequestState.DONE
        if too_long or any(length < offset for length, offset in zip(lengths, end.offsets, strict=True)):
            raise ViolationError(f"gap: client {client.number} has {client.got} at its end {end}")
        self.tell(client.info.id, end)

    def tell(self, request_id: str, end: RequestEnd) -> None:
        """Somebody was told an end."""
        first = self.told.setdefault(request_id, end)
        if not first.same_as(end) and self.strict:
            raise ViolationError(f"two ends: {request_id} was told {first}, then {end}")

    def fail(self, client: Client, error: str) -> None:
        """A client's stream broke for good."""
        client.failure = error
        if self.strict:
            raise ViolationError(f"lost: client {client.number} was told: {error}")

    # --- when all is quiet ---------------------------------------------------------------------------------------

    def judge_rest(self) -> None:
        """Nothing fails any more and time has passed: everything must have come to its one end."""
        for request_id in self.accepted:
            shot = self.seen.shots.get(request_id)
            if shot is None and self.strict:
                raise ViolationError(f"lost: accepted {request_id} does not exist")
            if shot is not None and shot.end is None:
                raise ViolationError(f"stuck: {request_id} stays {shot.state} with {shot.logs}")
        for client in self.clients:
            if not client.over and client.info is None:
                raise ViolationError(f"stuck: client {client.number} was never accepted")
            if not client.over and not client.submission.background:
                raise ViolationError(f"stuck: client {client.number} waits for its end")
            if client.end is not None and client.info is not None and self.strict:
                self._judge_client(client, self.seen.shots[client.info.id])

    def judge_usage(self, found: Sequence[TenantUsage]) -> None:
        """However often requests were ended, forgotten and restored: the lane has counted the ends that it holds."""
        counted = TenantUsage(tenant=TENANT)
        for shot in self.seen.shots.values():
            counted = counted.with_end(shot.info.submission, shot.end) if shot.end is not None else counted
        if found and list(found) != [counted]:
            raise ViolationError(f"counted wrongly: {found} instead of {counted}")
        if not found and any(shot.end is not None for shot in self.seen.shots.values()):
            raise ViolationError(f"not counted: {counted}")

    def _judge_client(self, client: Client, shot: Snapshot) -> None:
        if client.end is None or shot.end is None or not client.end.same_as(shot.end):
            raise ViolationError(f"two ends: client {client.number} saw {client.end}, the record says {shot.end}")
        for got, log in zip(client.got, shot.logs, strict=True):
            if tuple(got)[: log.num_tokens] != unpack_ids(log.ids):
                raise ViolationError(f"lost: client {client.number} saw {got}, the log is {unpack_ids(log.ids)}")
