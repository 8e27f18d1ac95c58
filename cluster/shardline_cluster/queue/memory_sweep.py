"""What ends by itself in a lane in memory: leases, deadlines, waits, graces."""

from collections.abc import Sequence

from shardline_cluster.queue.calls import DeadMember
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.memory_record import MemoryRecord
from shardline_cluster.queue.records import DisconnectAction, RequestState


def sweep(lane: MemoryLane, router: str | None, dead: Sequence[DeadMember]) -> None:
    """The script: renews the router's lease, then ends what is over."""
    if router is not None:
        lane.members.routers[router] = lane.now_ms + lane.terms.lease_ms
    sweep_lane(lane)
    if not lane.in_hold:
        for member in dead:
            reclaim(lane, member.incarnation, had_drained=member.had_drained)


def sweep_lane(lane: MemoryLane) -> None:
    """Ends what is over. Runs inside claim too, so that liveness needs no role."""
    if lane.now_ms - lane.last_sweep_ms > 2 * lane.terms.sweep_ms:
        _give_one_more_term(lane)
    lane.last_sweep_ms = lane.now_ms
    if not lane.in_hold:
        _end_leases(lane)
        _end_graces(lane)
    _end_deadlines(lane)
    _forget_the_idle(lane)


def reclaim(lane: MemoryLane, incarnation: str, *, had_drained: bool) -> None:
    """Takes everything from a leader that is gone."""
    leader = lane.members.leader(incarnation)
    renewed_since_hold = leader.renewed_ms > lane.hold_began_ms
    leader.lease_ends_ms, leader.idle = None, False
    for record in lane.held(incarnation):
        if had_drained:
            record.fruitless_claims = max(0, record.fruitless_claims - 1)
        elif renewed_since_hold and record.lengths == record.claimed:
            record.attempts += 1
        lane.hand_back(record)
        _fail_if_poisonous(lane, record)


def drop_listener(lane: MemoryLane, record: MemoryRecord, router: str, *, router_died: bool = False) -> None:
    """Takes a listener away; what becomes of a request that nobody listens to is its own choice.

    A router that died takes no client's decision: its streams get a grace of at least two leases. Another router's
    client neither takes it back by coming nor cuts it short by leaving.
    """
    del record.listeners[router]
    submission = record.info.submission
    if record.end is not None or submission.on_disconnect is DisconnectAction.CONTINUE:
        return
    if router_died:
        _wait_for_client(lane, record, max(submission.grace_ms, 2 * lane.terms.lease_ms))
    elif record.listeners:
        return
    elif submission.on_disconnect is DisconnectAction.GRACE:
        _wait_for_client(lane, record, submission.grace_ms)
    elif lane.held_back(record):
        _wait_for_client(lane, record, 0)
    elif _grace_ends_ms(lane, record) <= lane.now_ms:
        lane.end(record, lane.end_now(record, RequestState.CANCELLED, "the client disconnected"))


def next_event_ms(lane: MemoryLane) -> int:
    """How long nothing will happen in the lane by itself; a lease where nothing is known to be due."""
    instants = [record.info.deadline_ms for record in lane.alive()]
    instants += [_queue_limit_ms(record) for record in lane.alive() if _never_ran(record)]
    instants += [leader.lease_ends_ms for leader in lane.members.leaders.values()]
    instants += [lane.hold_until_ms, *lane.detached.values(), *lane.members.routers.values()]
    waits = [at - lane.now_ms for at in instants if at is not None and at > lane.now_ms]
    return min(waits, default=lane.terms.lease_ms)


def _give_one_more_term(lane: MemoryLane) -> None:
    """After an outage: healthy members are not robbed by the first that reconnects, nor their clients."""
    lane.last_outage_ms = lane.now_ms
    lane.members.extend_leases(lane.now_ms + lane.terms.lease_ms)


def _wait_for_client(lane: MemoryLane, record: MemoryRecord, ms: int) -> None:
    """Begins a grace, or lets a longer one be."""
    lane.detached[record.id] = max(lane.now_ms + ms, lane.detached.get(record.id, 0))


def _grace_ends_ms(lane: MemoryLane, record: MemoryRecord) -> int:
    """Instant until which a request waits for a client, or 0. One that an outage cut short begins anew at its end."""
    if record.id not in lane.detached:
        return 0
    return max(lane.detached[record.id], lane.last_outage_ms + record.info.submission.grace_ms)


def _end_leases(lane: MemoryLane) -> None:
    for incarnation in lane.members.expired_leaders(lane.now_ms):
        reclaim(lane, incarnation, had_drained=False)
    for router in lane.members.expired_routers(lane.now_ms):
        del lane.members.routers[router]
        for record in lane.alive():
            if router in record.listeners:
                drop_listener(lane, record, router, router_died=True)


def _end_graces(lane: MemoryLane) -> None:
    records = [lane.records[request_id] for request_id in lane.detached]
    for record in [r for r in records if _grace_ends_ms(lane, r) <= lane.now_ms]:
        if record.listeners:
            del lane.detached[record.id]
        else:
            lane.end(record, lane.end_now(record, RequestState.CANCELLED, "the client did not come back"))


def _end_deadlines(lane: MemoryLane) -> None:
    for record in lane.alive():
        if lane.held_back(record):
            continue
        if record.info.deadline_ms is not None and record.info.deadline_ms <= lane.now_ms:
            lane.end(record, lane.end_now(record, RequestState.EXPIRED, "the request's timeout is over"))
        elif _never_ran(record) and _queue_limit_ms(record) <= lane.now_ms:
            lane.end(record, lane.end_now(record, RequestState.EXPIRED, "it waited too long in the queue"))


def _never_ran(record: MemoryRecord) -> bool:
    return record.waiting and record.epoch == 0


def _queue_limit_ms(record: MemoryRecord) -> int:
    return record.info.submitted_ms + record.info.submission.max_queue_ms


def _fail_if_poisonous(lane: MemoryLane, record: MemoryRecord) -> None:
    if record.attempts >= lane.terms.max_crashes:
        error = f"{record.attempts} leaders in a row crashed while they ran it, and none added a token"
    elif record.fruitless_claims >= lane.terms.max_fruitless_claims:
        error = f"it was claimed {record.fruitless_claims} times in a row and got no token"
    else:
        return
    lane.end(record, lane.end_now(record, RequestState.FAILED, error))


def _forget_the_idle(lane: MemoryLane) -> None:
    lane.shares.forget_idle({record.tenant for record in lane.alive()})
    lane.members.drop_long_gone(lane.now_ms, lane.terms.retention_ms)
