"""The queue in Redis and its twin in memory answer the same to the same calls, whatever the calls are.

Hypothesis draws a history of calls, of clocks that jump, of servers that forget. Both queues live through it, and every
answer and every published message must be equal, but for what is a hint (estimates of waits, who is woken) and for the
order of lists.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from shardline_cluster.queue.answers import Accepted, ClaimAnswer, CommitAnswer, Duplicate, LaneFull, LaneView
from shardline_cluster.queue.calls import (
    ClaimCall,
    CommitCall,
    CommitEntry,
    DeadMember,
    LaneBounds,
    Member,
    MemberRole,
    RestoreCall,
    SequenceCommit,
)
from shardline_cluster.queue.log_encoding import logprobs_width, pack_ids
from shardline_cluster.queue.published import Published, QueueMessage
from shardline_cluster.queue.records import (
    DisconnectAction,
    Grant,
    RequestEnd,
    RequestInfo,
    RequestState,
    SequenceFinish,
    SequenceLog,
    Submission,
)
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from tests.cluster.queue.lane_calls import a_submission
from tests.cluster.queue.lane_harness import LaneHarness
from tests.cluster.queue.memory_lane_harness import MemoryLaneHarness
from tests.cluster.queue.redis_lane_harness import RedisLaneHarness
from tests.cluster.queue.redis_servers import RedisServers, server_binaries

LEADERS, ROUTERS, TENANTS = ("l0", "l1"), ("r0", "r1"), ("t0", "t1", "t2")
FINISHES = (None, None, SequenceFinish("stop"), SequenceFinish("length", text_end=3))
STEPS_MS = (0, 1, 400, 900, 1_500, 2_100, 6_000, 31_000)
MEMBERS = (*LEADERS, *ROUTERS)


@dataclass
class History:
    """Two queues and what is known of their common past. Numbers drawn by hypothesis choose from it."""

    harnesses: tuple[LaneHarness, LaneHarness]
    infos: list[RequestInfo] = field(default_factory=list)
    grants: list[tuple[str, str, Grant]] = field(default_factory=list)  # leader, request, grant
    claims: dict[str, list[ClaimCall]] = field(default_factory=lambda: {name: [] for name in LEADERS})
    snapshots: list[tuple[object, object]] = field(default_factory=list)
    listener_number: int = 0
    mail_seen: dict[str, int] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)  # identity → the same name in both queues

    async def name_servers(self) -> None:
        """Notes that both have another server now."""
        name = f"server {len(self.servers) // 2}"
        for harness in self.harnesses:
            self.servers[await harness.identity()] = name

    def shown(self, value: object) -> str:
        """A value in which both queues' servers have the same names."""
        text = repr(value)
        for identity, name in self.servers.items():
            text = text.replace(f"'{identity}'", name)
        return text

    async def both(self, call: Callable[[RequestQueue, str], Awaitable[Reply[Any]]]) -> Any:
        """Makes a call on both queues, compares the answers, and returns one of them."""
        replies = []
        for harness in self.harnesses:
            reply = await call(harness.queue(), await harness.identity())
            replies.append(replace(reply, value=_without_hints(reply.value)))
        assert self.shown(replies[0]) == self.shown(replies[1])
        return replies[0].value

    async def compare_messages(self) -> None:
        """Compares what was published to every member."""
        for member in MEMBERS:
            told = [await harness.published(member) for harness in self.harnesses]
            one, other = (self.shown(_by_request(messages)) for messages in told)
            assert one == other, f"messages for {member}"

    def info(self, number: int) -> RequestInfo | None:
        return self.infos[number % len(self.infos)] if self.infos else None

    def learn(self, answer: object) -> None:
        if isinstance(answer, Accepted | Duplicate):
            self.infos.append(answer.info)


def _by_request(messages: list[QueueMessage]) -> list[Published]:
    """Each request's messages in order; what happens to two requests in one script has none."""
    return sorted((m for m in messages if isinstance(m, Published)), key=lambda m: m.id)


def _without_hints(value: Any) -> Any:
    if isinstance(value, ClaimAnswer):
        return replace(value, next_event_ms=0, granted=tuple(sorted(value.granted, key=lambda g: g.info.id)))
    if isinstance(value, Accepted):
        return replace(value, estimated_wait_ms=None)
    if isinstance(value, CommitAnswer) and value.held is not None:
        return replace(value, held=tuple(sorted(value.held, key=lambda held: held[0])))
    if isinstance(value, LaneView):
        return replace(value, leaders=tuple(sorted(value.leaders, key=lambda leader: leader.incarnation)))
    return replace(value, retry_after_ms=0) if isinstance(value, LaneFull) else value


# --- what may happen ---------------------------------------------------------------------------------------------


def _a_request(identity: str, a: int, b: int) -> Submission:
    """Few enough kinds that ids and keys meet again."""
    key = f"k{b}" if a % 4 == 3 else None
    return a_submission(
        identity if b % 3 else "another server",
        8 * a + b if key is None else 100 + 8 * (a // 4) + b,
        tenant=TENANTS[b % 3] if key is None else "t0",
        priority=(0, 0, 5, -5)[a % 4],
        num_sequences=1 + (a == 1),
        has_prompt_log=(a, b % 2) == (1, 1),
        num_logprobs=1 if a == 2 else None,
        timeout_ms=(None, None, 5_000)[b % 3],
        max_queue_ms=20_000,
        on_disconnect=tuple(DisconnectAction)[a % 3],
        grace_ms=3_000,
        retention_ms=30_000,
        store=a != 5,
        idempotency_key=key,
        body_digest=f"{a // 4:02}" if key else "00",
        background=b == 7,
    )


async def _submit(h: History, a: int, b: int, c: int) -> None:
    h.listener_number += 1
    number = h.listener_number
    h.learn(await h.both(lambda q, identity: q.submit(ROUTERS[a % 2], number, _a_request(identity, a, b))))


async def _claim(h: History, a: int, b: int, c: int) -> None:
    name = LEADERS[a % 2]
    number = len(h.claims[name]) + 1
    h.claims[name].append(
        ClaimCall(
            incarnation=name,
            number=number,
            nonce=f"{name}-{number:05}".encode(),
            free_slots=b,
            free_tokens=(15, 40, 10_000)[b % 3],
            inbox_seen=h.mail_seen.get(name, 0),
        )
    )
    await _run_claim(h, h.claims[name][-1])


async def _claim_again(h: History, a: int, b: int, c: int) -> None:
    calls = h.claims[LEADERS[a % 2]]
    if calls:
        await _run_claim(h, calls[-1 - b % min(2, len(calls))])


async def _run_claim(h: History, call: ClaimCall) -> None:
    answer = await h.both(lambda q, _: q.claim(call))
    for granted in answer.granted:
        h.grants.append((call.incarnation, granted.info.id, granted.grant))
    if answer.inbox:
        h.mail_seen[call.incarnation] = answer.inbox[0].number


async def _commit(h: History, a: int, b: int, c: int) -> None:
    if not h.grants:
        return
    leader, request_id, grant = h.grants[-1 - a % len(h.grants)]
    info = next(i for i in h.infos if i.id == request_id)
    sequences = tuple(_sent(info, s, b, c) for s in range(info.submission.num_sequences)) if b != 6 else ()
    entry = CommitEntry(request_id, grant, sequences, "it broke" if (b, c) == (5, 5) else "")
    call = CommitCall(
        incarnation=leader, inbox_seen=h.mail_seen.get(leader, 0), entries=(entry,), list_held=bool(b % 2)
    )
    await h.both(lambda q, _: q.commit(call))


def _sent(info: RequestInfo, sequence: int, b: int, c: int) -> SequenceCommit:
    """Tokens are their own offsets, but for a rare other generation: overlaps mostly agree."""
    offset, count = b % 5, (c + sequence) % 4
    ids = [offset + k + (100 if (b, c) == (3, 3) else 0) for k in range(count)]
    return SequenceCommit(sequence, offset, pack_ids(ids), _logprobs(info, count), FINISHES[(b + c) % 4])


def _logprobs(info: RequestInfo, count: int) -> bytes:
    num_logprobs = info.submission.num_logprobs
    return b"" if num_logprobs is None else b"p" * (count * logprobs_width(num_logprobs))


async def _heartbeat(h: History, a: int, b: int, c: int) -> None:
    call = CommitCall(incarnation=LEADERS[a % 2], inbox_seen=0, list_held=True)
    await h.both(lambda q, _: q.commit(call))


async def _release(h: History, a: int, b: int, c: int) -> None:
    if h.grants:
        leader, request_id, grant = h.grants[-1 - a % len(h.grants)]
        await h.both(lambda q, _: q.release(leader, [(request_id, grant)]))


async def _cancel(h: History, a: int, b: int, c: int) -> None:
    info = h.info(a)
    if info:
        await h.both(lambda q, _: q.cancel(info.id, info.submission.tenant if b else "stranger"))


async def _attach(h: History, a: int, b: int, c: int) -> None:
    info = h.info(a)
    if info:
        h.listener_number += 1
        number = h.listener_number
        held = (c,) * info.submission.num_sequences if c % 2 else ()
        await h.both(lambda q, _: q.attach(ROUTERS[b % 2], number, info.id, info.submission.tenant, held=held))


async def _detach(h: History, a: int, b: int, c: int) -> None:
    info = h.info(a)
    if info:
        number = h.listener_number - b // 2
        await h.both(lambda q, _: q.detach(ROUTERS[b % 2], number, info.id))


async def _sweep(h: History, a: int, b: int, c: int) -> None:
    dead = (DeadMember(LEADERS[b % 2], b > 5),) if b > 3 else ()
    await h.both(lambda q, _: q.sweep(ROUTERS[a % 2] if a < 6 else None, dead))


async def _forget(h: History, a: int, b: int, c: int) -> None:
    info = h.info(a)
    if info:
        await h.both(lambda q, _: q.forget(info.id, info.submission.tenant))


async def _drain(h: History, a: int, b: int, c: int) -> None:
    await h.both(lambda q, _: q.drain(LEADERS[a % 2]))


async def _configure(h: History, a: int, b: int, c: int) -> None:
    bounds = LaneBounds(
        max_waiting_requests=3 + b,
        max_waiting_tokens=30 * (a + 1),
        largest_request_tokens=(None, 20)[a % 2],
        tenant_weights=(("t1", 2.0), ("t2", 0.5)),
    )
    await h.both(lambda q, _: q.configure(bounds))


async def _register(h: History, a: int, b: int, c: int) -> None:
    name = MEMBERS[a % 4]
    role = MemberRole.LEADER if name in LEADERS else MemberRole.ROUTER
    await h.both(lambda q, _: q.register(Member(incarnation=name, role=role, numerics_id=f"n{b}", status="{}")))


async def _advance(h: History, a: int, b: int, c: int) -> None:
    for harness in h.harnesses:
        await harness.advance(STEPS_MS[b])


async def _live(h: History, a: int, b: int, c: int) -> None:
    """Time passes with everybody sweeping, so that it is no outage."""
    for _ in range(a + b):
        for harness in h.harnesses:
            await harness.advance(1_000)
        await h.both(lambda q, _: q.sweep(ROUTERS[0]))


async def _snapshot(h: History, a: int, b: int, c: int) -> None:
    one, other = h.harnesses
    h.snapshots.append((await one.snapshot(), await other.snapshot()))


async def _rollback(h: History, a: int, b: int, c: int) -> None:
    if h.snapshots:
        snapshots = h.snapshots[-1 - a % len(h.snapshots)] if b else (None, None)
        for harness, snapshot in zip(h.harnesses, snapshots, strict=True):
            await harness.rollback(snapshot)
            if b > 5:
                await harness.advance(-3_000)
        h.mail_seen.clear()  # as a leader does that reads a new identity
        await h.name_servers()


async def _restore(h: History, a: int, b: int, c: int) -> None:
    info = h.info(a)
    if info is None:
        return
    count = b % 5
    finish = FINISHES[c % 4]
    log = SequenceLog(pack_ids(range(count)), _logprobs(info, count), finish)
    num_sequences = info.submission.num_sequences
    ended_ms = info.submitted_ms + (0, 20_000)[c % 2]
    end = RequestEnd(
        RequestState.DONE, (count,) * num_sequences, (SequenceFinish("stop"),) * num_sequences, ended_ms=ended_ms
    )
    mine = [(leader, grant) for leader, request_id, grant in h.grants if request_id == info.id]
    call = RestoreCall(
        incarnation=mine[-1][0] if mine and b > 4 else ROUTERS[0],
        info=replace(info, submitted_ms=info.submitted_ms + (0, 0, 0, 0, 0, 100, 40_000, -40_000)[(b + c) % 8]),
        logs=(log,) * num_sequences,
        grant=mine[-1][1] if mine and b > 4 else None,
        end=end if c > 5 else None,
    )
    await h.both(lambda q, _: q.restore(call))


Event = Callable[[History, int, int, int], Awaitable[None]]
EVENTS: tuple[Event, ...] = (
    *(_submit, _submit, _submit, _claim, _claim, _claim, _commit, _commit, _commit, _commit, _restore, _restore),
    *(_claim_again, _heartbeat, _release, _cancel, _attach, _detach, _sweep, _forget, _drain, _configure),
    *(_register, _advance, _advance, _live, _snapshot, _rollback),
)
NAMES = {event.__name__: event for event in EVENTS}
Step = tuple[str, int, int, int]


async def _live_through(url: str, steps: list[Step]) -> None:
    redis = RedisLaneHarness(url)
    await redis.begin()
    history = History((MemoryLaneHarness(), redis))
    try:
        await history.name_servers()
        for harness in history.harnesses:
            for member in MEMBERS:
                await harness.watch(member)
        for name, a, b, c in steps:
            await NAMES[name](history, a, b, c)
            for info in {i.id: i for i in history.infos}.values():
                await history.both(lambda q, _, i=info: q.look(i.id, i.submission.tenant))  # type: ignore[misc]
            await history.both(lambda q, _: q.view())
            await history.both(lambda q, _: q.usage())
            await history.compare_messages()
    finally:
        for harness in history.harnesses:
            await harness.close()


NUMBERS = st.integers(0, 7)
STEPS = st.lists(st.tuples(st.sampled_from([e.__name__ for e in EVENTS]), NUMBERS, NUMBERS, NUMBERS), max_size=40)


@pytest.mark.redis
@pytest.mark.parametrize("kind", list(server_binaries()))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@example(
    [
        *(("_live", 4, 3, 0), ("_submit", 0, 1, 0), ("_claim", 0, 7, 0), ("_snapshot", 0, 0, 0)),
        *(("_commit", 3, 0, 0), ("_rollback", 0, 1, 0), ("_restore", 0, 7, 2), ("_commit", 3, 0, 2)),
    ]
)
@example(  # a request that ended without a token says nothing about how long outputs are
    [
        *(("_live", 4, 3, 0), ("_submit", 0, 1, 0), ("_claim", 0, 7, 0), ("_cancel", 0, 1, 0)),
        *(("_submit", 0, 0, 0), ("_submit", 0, 3, 0), ("_submit", 0, 4, 0), ("_claim", 1, 1, 0), ("_claim", 1, 1, 0)),
    ]
)
@given(STEPS)
def test_both_queues_answer_alike(kind: str, redis_servers: RedisServers, steps: list[Step]) -> None:
    asyncio.run(_live_through(redis_servers.url(kind), steps))
