"""One rule of the protocol broken at a time: what the lane machine must see if it is worth its time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shardline_cluster.queue import (
    memory_leader_scripts,
    memory_request_queue,
    memory_restore,
    memory_router_scripts,
    memory_sweep,
)
from shardline_cluster.queue.answers import ClaimAnswer, ForgetCode, RestoreAnswer, RestoreCode
from shardline_cluster.queue.calls import ClaimCall, CommitEntry, RestoreCall
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.memory_members import MemoryLeader
from shardline_cluster.queue.memory_record import MemoryRecord
from shardline_cluster.queue.records import Grant, RequestEnd
from shardline_cluster.replica.held_requests import HeldRequests
from shardline_cluster.router.streams.lane_calls import LaneCall
from shardline_cluster.router.streams.lane_streams import LaneStreams
from shardline_cluster.router.streams.recent_requests import RecentRequests

Mutant = Callable[[pytest.MonkeyPatch], None]


def no_nonce(patch: pytest.MonkeyPatch) -> None:
    """A grant is compared by its epoch alone."""

    def owns(record: MemoryRecord, grant: Grant) -> bool:
        return record.grant is not None and record.epoch == grant.epoch

    patch.setattr(memory_leader_scripts, "_owns", owns)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A commit is taken from whoever sends it."""
    patch.setattr(memory_leader_scripts, "_owns", lambda record, grant: True)


def no_overlap(patch: pytest.MonkeyPatch) -> None:
    """A commit's overlap is not compared with the log."""
    patch.setattr(memory_leader_scripts, "_conflicts", lambda record, sent: False)


def no_hold(patch: pytest.MonkeyPatch) -> None:
    """Another server's lane goes on as if nothing had happened."""
    patch.setattr(MemoryLane, "in_hold", property(lambda lane: False))


def ends_in_a_hold(patch: pytest.MonkeyPatch) -> None:
    """In a hold nothing is kept from being claimed and ended; only leases and graces wait."""
    patch.setattr(MemoryLane, "held_back", lambda lane, record: False)


def leases_end_in_a_hold(patch: pytest.MonkeyPatch) -> None:
    """Leases that were forgotten are not renewed when another server takes over."""
    original = memory_sweep.sweep_lane

    def sweep(lane: MemoryLane) -> None:
        memory_sweep._end_leases(lane)
        original(lane)

    patch.setattr(MemoryLane, "_begin_hold", _begin_hold_without_leases)
    patch.setattr(memory_sweep, "sweep_lane", sweep)
    patch.setattr(memory_leader_scripts, "sweep_lane", sweep)


def _begin_hold_without_leases(lane: MemoryLane) -> None:
    lane.hold_began_ms = lane.now_ms
    lane.hold_until_ms = lane.now_ms + lane.terms.hold_ms


def a_claim_is_not_repeated(patch: pytest.MonkeyPatch) -> None:
    """The same claim number again is a new claim."""
    original = memory_leader_scripts.claim

    def claim(lane: MemoryLane, call: ClaimCall) -> ClaimAnswer:
        lane.members.leader(call.incarnation).claim_number = 0
        return original(lane, call)

    patch.setattr(memory_leader_scripts, "claim", claim)


def nothing_is_reclaimed(patch: pytest.MonkeyPatch) -> None:
    """A leader's lease ends without any consequence."""

    def reclaim(lane: MemoryLane, incarnation: str, *, had_drained: bool) -> None:
        lane.members.leader(incarnation).lease_ends_ms = None

    patch.setattr(memory_sweep, "reclaim", reclaim)


def every_reclaim_counts(patch: pytest.MonkeyPatch) -> None:
    """A lost lease is a crash, whatever the request got in it."""
    original = memory_sweep.reclaim

    def reclaim(lane: MemoryLane, incarnation: str, *, had_drained: bool) -> None:
        for record in lane.held(incarnation):
            record.attempts += 1
        original(lane, incarnation, had_drained=had_drained)

    patch.setattr(memory_sweep, "reclaim", reclaim)


def a_release_counts(patch: pytest.MonkeyPatch) -> None:
    """A hand-off is taken for a crash."""
    original = memory_leader_scripts.release

    def release(lane: MemoryLane, incarnation: str, grants: list[tuple[str, Grant]]) -> None:
        for request_id, _ in grants:
            if request_id in lane.records:
                lane.records[request_id].attempts += 1
        original(lane, incarnation, grants)

    patch.setattr(memory_leader_scripts, "release", release)


def no_term_after_an_outage(patch: pytest.MonkeyPatch) -> None:
    """The first that reconnects takes everything from those that do not yet."""
    patch.setattr(memory_sweep, "_give_one_more_term", lambda lane: None)


def attach_only_reads(patch: pytest.MonkeyPatch) -> None:
    """A listener is not registered."""

    def attach(lane: MemoryLane, router: str, number: int, request_id: str, tenant: str, *, held: Sequence[int]) -> Any:
        return memory_router_scripts.look(lane, request_id, tenant, held=held)

    patch.setattr(memory_router_scripts, "attach", attach)


def an_old_detach_counts(patch: pytest.MonkeyPatch) -> None:
    """A detach takes away a newer listener too."""

    def detach(lane: MemoryLane, router: str, number: int, request_id: str) -> None:
        record = lane.records.get(request_id)
        if record is not None and router in record.listeners:
            memory_sweep.drop_listener(lane, record, router)

    patch.setattr(memory_router_scripts, "detach", detach)


def a_dead_router_cancels(patch: pytest.MonkeyPatch) -> None:
    """A router that died takes its clients' decisions."""
    original = memory_sweep.drop_listener

    def drop(lane: MemoryLane, record: MemoryRecord, router: str, *, router_died: bool = False) -> None:
        original(lane, record, router)

    patch.setattr(memory_sweep, "drop_listener", drop)


def a_dead_router_counts_last(patch: pytest.MonkeyPatch) -> None:
    """A router that dies leaves no grace while another one listens."""
    original = memory_sweep.drop_listener

    def drop(lane: MemoryLane, record: MemoryRecord, router: str, *, router_died: bool = False) -> None:
        original(lane, record, router, router_died=router_died and len(record.listeners) == 1)

    patch.setattr(memory_sweep, "drop_listener", drop)


def an_attach_takes_a_grace_back(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes stands for every client that has not come back."""
    original = memory_router_scripts.attach

    def attach(lane: MemoryLane, router: str, number: int, request_id: str, tenant: str, *, held: Sequence[int]) -> Any:
        lane.detached.pop(request_id, None)
        return original(lane, router, number, request_id, tenant, held=held)

    patch.setattr(memory_router_scripts, "attach", attach)


def an_end_overwrites_an_end(patch: pytest.MonkeyPatch) -> None:
    """Restored ends win over what is there."""
    original = memory_restore.restore

    def restore(lane: MemoryLane, call: RestoreCall) -> RestoreAnswer:
        record = lane.records.get(call.info.id)
        if record is not None and record.end is not None and call.end is not None:
            record.end = call.end
        return original(lane, call)

    patch.setattr(memory_request_queue, "restore", restore)


def nothing_is_restored(patch: pytest.MonkeyPatch) -> None:
    """A restore is answered and does nothing."""
    patch.setattr(memory_request_queue, "restore", lambda lane, call: RestoreAnswer(RestoreCode.OK))


def a_grant_is_never_adopted(patch: pytest.MonkeyPatch) -> None:
    """A forgotten claim stays forgotten."""
    patch.setattr(memory_restore, "_adopt", lambda lane, record, call, known: RestoreAnswer(RestoreCode.OK))


def a_restored_end_is_longer(patch: pytest.MonkeyPatch) -> None:
    """A restored end is written with the log's length instead of its own offsets."""
    original = MemoryLane.end

    def end(lane: MemoryLane, record: MemoryRecord, told: RequestEnd, **options: Any) -> None:
        fresh = lane.end_now(record, told.state, told.error)
        original(lane, record, fresh, **options)

    patch.setattr(MemoryLane, "end", end)


def mail_is_read_once(patch: pytest.MonkeyPatch) -> None:
    """Mail is gone with the first reply that carries it."""
    original = MemoryLeader.take_inbox

    def take(leader: MemoryLeader, seen: int) -> Any:
        inbox = original(leader, seen)
        leader.inbox.clear()
        return inbox

    patch.setattr(MemoryLeader, "take_inbox", take)


def a_commit_takes_no_notice_of_deadlines(patch: pytest.MonkeyPatch) -> None:
    """Tokens are appended after the deadline."""
    original = memory_leader_scripts._commit_entry

    def commit_entry(lane: MemoryLane, entry: CommitEntry) -> Any:
        record = lane.records.get(entry.id)
        if record is None:
            return original(lane, entry)
        info, record.info = record.info, replace(record.info, deadline_ms=None)
        try:
            return original(lane, entry)
        finally:
            record.info = info

    patch.setattr(memory_leader_scripts, "_commit_entry", commit_entry)


def leaders_restore_nothing(patch: pytest.MonkeyPatch) -> None:
    """A leader takes another server for the same."""
    patch.setattr(HeldRequests, "answered", lambda held, identity, now: None)


def routers_restore_nothing(patch: pytest.MonkeyPatch) -> None:
    """A router takes another server for the same."""
    patch.setattr(LaneStreams, "_heal", lambda streams, now_ms: [])


def routers_remember_nothing(patch: pytest.MonkeyPatch) -> None:
    """A router forgets a request with its last reader."""
    patch.setattr(RecentRequests, "remember", lambda recent, info, logs, end: None)


def routers_never_look_again(patch: pytest.MonkeyPatch) -> None:
    """A silent stream stays silent."""

    def look_after(streams: LaneStreams, now_ms: float) -> list[LaneCall]:
        return []

    patch.setattr(LaneStreams, "look_after", look_after)


def an_end_is_counted_whenever_it_is_told(patch: pytest.MonkeyPatch) -> None:
    """Whoever restores an end that is there counts it once more."""
    original = memory_restore.restore

    def restore(lane: MemoryLane, call: RestoreCall) -> RestoreAnswer:
        answer = original(lane, call)
        if answer.code is RestoreCode.ENDED and answer.end is not None:
            tenant = call.info.submission.tenant
            lane.usage[tenant] = lane.usage[tenant].with_end(call.info.submission, answer.end)
        return answer

    patch.setattr(memory_request_queue, "restore", restore)


def what_is_forgotten_comes_back(patch: pytest.MonkeyPatch) -> None:
    """A deletion on demand leaves no mark."""
    original = memory_router_scripts.forget

    def forget(lane: MemoryLane, request_id: str, tenant: str) -> ForgetCode:
        code = original(lane, request_id, tenant)
        lane.forgotten.clear()
        return code

    patch.setattr(memory_router_scripts, "forget", forget)


def an_end_that_has_run_out_counts_again(patch: pytest.MonkeyPatch) -> None:
    """A restored end counts however old it is."""
    patch.setattr(memory_restore, "_has_run_out", lambda lane, record, end: False)


FOUND_BY_CHANCE: tuple[Mutant, ...] = (
    an_end_is_counted_whenever_it_is_told,
    no_fence,
    no_hold,
    ends_in_a_hold,
    a_release_counts,
    attach_only_reads,
    nothing_is_restored,
    a_grant_is_never_adopted,
    routers_restore_nothing,
    routers_never_look_again,
)
FOUND_BY_LONG_WALKS: tuple[Mutant, ...] = (  # within some hundreds
    leases_end_in_a_hold,
    nothing_is_reclaimed,
    every_reclaim_counts,
    no_term_after_an_outage,
    a_restored_end_is_longer,
    routers_remember_nothing,
)
