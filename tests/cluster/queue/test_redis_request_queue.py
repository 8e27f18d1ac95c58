"""What only the queue in Redis has: a real clock and identity, memory that fills, scripts that a server loses, pages.

Everything else about it is in the shared suite (`test_queue_contract_*.py`).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardline_cluster.errors import InvalidCallError, QueueUnavailableError
from shardline_cluster.queue import call_encoding
from shardline_cluster.queue.answers import Accepted, CommitCode, Ended, Gone, LaneFull, RestoreCode, Snapshot
from shardline_cluster.queue.calls import CommitEntry, RestoreCall, SequenceCommit
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer
from shardline_cluster.queue.log_encoding import pack_ids, pack_logprobs
from shardline_cluster.queue.published import Published, Subscribed, Wake
from shardline_cluster.queue.records import RequestState, SequenceLog
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections, parse_info
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.terms import QueueTerms
from tests.cluster.queue.lane_calls import STOP, TENANT, HandLeader, a_submission, log_ids, some
from tests.cluster.queue.redis_lane_harness import RedisLaneHarness
from tests.cluster.queue.redis_servers import running_server, server_binaries

pytestmark = pytest.mark.redis
PATIENT = QueueTerms(call_timeout_ms=20_000, hold_ms=61_500, lease_ms=44_000)  # the machine may be loaded


@pytest.fixture(scope="module", params=list(server_binaries().values()), ids=list(server_binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of this file's own: some tests change its settings or kill it."""
    binary: Path = request.param
    with running_server(binary, Durability.RELAXED) as running:
        yield running


@pytest.fixture
async def raw(server: EmbeddedServer) -> AsyncIterator[RedisConnections]:
    connections = RedisConnections(RedisAddress.parse(server.url), size=1, timeout_s=20)
    await connections.execute("FLUSHALL")
    yield connections
    await connections.close()


@pytest.fixture
async def queue(server: EmbeddedServer, raw: RedisConnections) -> AsyncIterator[RedisRequestQueue]:
    made = RedisRequestQueue(server.url, "lane", prefix="test", terms=PATIENT)
    yield made
    await made.close()


async def submit(queue: RedisRequestQueue, number: int = 1, **changes: object) -> Accepted:
    identity = (await queue.view()).identity
    answer = (await queue.submit("router-1", 1, a_submission(identity, number, **changes))).value
    assert isinstance(answer, Accepted)
    return answer


# --- identity and clock ------------------------------------------------------------------------------------------


async def test_identity_and_clock_are_the_servers(queue: RedisRequestQueue, raw: RedisConnections) -> None:
    info = parse_info(await raw.execute("INFO", "server"))

    reply = await queue.view()

    assert reply.identity.partition("-")[0] == info["run_id"]
    assert abs(reply.now_ms - int(info["server_time_usec"]) // 1000) < 20_000
    assert reply.in_hold


async def test_another_replication_id_is_no_other_server(queue: RedisRequestQueue, raw: RedisConnections) -> None:
    before = parse_info(await raw.execute("INFO", "replication"))["master_replid"]
    hold_ends_ms = (await queue.view()).value.hold_ends_ms

    await raw.execute("REPLICAOF", "127.0.0.1", "1")
    await raw.execute("REPLICAOF", "NO", "ONE")

    assert parse_info(await raw.execute("INFO", "replication"))["master_replid"] != before
    assert (await queue.view()).value.hold_ends_ms == hold_ends_ms


async def test_a_server_that_is_emptied_while_it_runs_is_another_one_and_begins_a_hold(
    queue: RedisRequestQueue, raw: RedisConnections
) -> None:
    accepted = await submit(queue)
    before = await queue.view()

    await raw.execute("FLUSHALL")
    after = await queue.view()

    assert after.identity != before.identity
    assert after.in_hold
    call = RestoreCall(incarnation="router-1", info=accepted.info, logs=(SequenceLog(),))
    restored = await queue.restore(call)
    assert restored.value.code is RestoreCode.OK
    assert (await queue.view()).identity == after.identity


async def test_a_lane_that_is_opened_on_a_new_server_has_no_hold_until_the_server_is_started_again(
    queue: RedisRequestQueue, raw: RedisConnections, server: EmbeddedServer
) -> None:
    await queue.open_on_new_server()
    opened = await queue.view()

    server.restart()
    with contextlib.suppress(QueueUnavailableError):
        await queue.view()
    after = await queue.view()

    assert not opened.in_hold
    assert after.in_hold
    assert after.value.hold_ends_ms == pytest.approx(after.now_ms + PATIENT.hold_ms, abs=20_000)


async def test_opening_a_lane_that_is_there_leaves_its_hold_alone(queue: RedisRequestQueue) -> None:
    before = await queue.view()

    await queue.open_on_new_server()

    assert (await queue.view()).value.hold_ends_ms == before.value.hold_ends_ms


async def test_a_restarted_server_is_another_one_and_begins_a_hold(
    queue: RedisRequestQueue, server: EmbeddedServer
) -> None:
    accepted = await submit(queue)
    before = await queue.view()
    os.kill(server.pid, signal.SIGKILL)

    server.restart()
    with contextlib.suppress(QueueUnavailableError):
        await queue.view()
    after = await queue.view()

    assert after.identity != before.identity
    assert after.value.hold_ends_ms == pytest.approx(after.now_ms + PATIENT.hold_ms, abs=20_000)
    assert isinstance((await queue.look(accepted.info.id, TENANT)).value, Snapshot)
    assert await HandLeader(queue).claim() == ()


# --- a server that is full, empty or busy ------------------------------------------------------------------------


async def test_a_full_server_refuses_new_requests_and_finishes_running_ones(
    queue: RedisRequestQueue, raw: RedisConnections
) -> None:
    accepted = await submit(queue)
    leader = HandLeader(queue)
    granted = await leader.claim_one()
    await raw.execute("CONFIG", "SET", "maxmemory", "1")

    try:
        refused = (await queue.submit("router-1", 1, a_submission("x", 2))).value
        await leader.commit(granted, some(0, [1]))
        ended = await leader.commit(granted, some(1, [2], STOP))
        snapshot = (await queue.attach("router-2", 1, accepted.info.id, TENANT)).value
    finally:
        await raw.execute("CONFIG", "SET", "maxmemory", "0")

    assert refused == LaneFull("memory", 1, 1_000)
    assert ended.code is CommitCode.OK
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.state, log_ids(snapshot.logs)) == (RequestState.DONE, [1, 2])
    assert isinstance((await queue.submit("router-1", 1, a_submission("x", 2))).value, Accepted)


async def test_scripts_that_the_server_lost_are_loaded_again(queue: RedisRequestQueue, raw: RedisConnections) -> None:
    await queue.view()
    await raw.execute("SCRIPT", "FLUSH")

    assert (await queue.view()).value.waiting_requests == 0


async def test_a_commit_does_not_wait_behind_other_calls(queue: RedisRequestQueue) -> None:
    blocked = [asyncio.create_task(queue._calls.execute("BLPOP", "nothing", 0)) for _ in range(8)]
    await asyncio.sleep(0.05)

    await asyncio.wait_for(HandLeader(queue).beat(), 10)

    for task in blocked:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*blocked, return_exceptions=True)


async def test_a_call_that_is_malformed_in_its_second_half_writes_nothing(queue: RedisRequestQueue) -> None:
    accepted = await submit(queue)
    await submit(queue, 2)
    leader = HandLeader(queue)
    first, second = await leader.claim()
    entries = (
        CommitEntry(first.info.id, first.grant, (some(0, [1, 2]),)),
        CommitEntry(second.info.id, second.grant, (some(0, [3], sequence=5),)),
    )

    with pytest.raises(InvalidCallError, match="there is no sequence 5"):
        await leader.commit_all(*entries)

    snapshot = (await queue.look(accepted.info.id, TENANT)).value
    assert isinstance(snapshot, Snapshot)
    assert log_ids(snapshot.logs) == []


# --- pages -------------------------------------------------------------------------------------------------------


async def test_a_log_that_does_not_fit_one_reply_is_read_in_pages(queue: RedisRequestQueue) -> None:
    accepted = await submit(queue, num_sequences=2, num_logprobs=0, max_tokens=1_000_000)
    leader = HandLeader(queue)
    (granted,) = await leader.claim(free_tokens=10**9)
    ids = list(range(400_000))
    logprobs = pack_logprobs(7, -0.5, [], [], num_logprobs=0) * len(ids)
    sent = [SequenceCommit(s, 0, pack_ids(ids), logprobs, None) for s in (0, 1)]
    await leader.commit(granted, *sent)

    snapshot = (await queue.attach("router-1", 2, accepted.info.id, TENANT)).value
    rest = (await queue.attach("router-1", 3, accepted.info.id, TENANT, held=(1, 10))).value
    ended = (await queue.cancel(accepted.info.id, TENANT)).value

    expected = tuple(SequenceLog(s.ids, s.logprobs) for s in sent)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.logs == expected
    assert isinstance(rest, Snapshot)
    assert [log.num_tokens for log in rest.logs] == [399_999, 399_990]
    assert all(log.ids.endswith(whole.ids[-4_000:]) for log, whole in zip(rest.logs, expected, strict=True))
    assert isinstance(ended, Ended)
    assert ended.logs == expected


async def test_a_long_restore_goes_in_pages(queue: RedisRequestQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_encoding, "MAX_PAGE_BYTES", 64)
    accepted = await submit(queue, idempotency_key="k")
    leader = HandLeader(queue)
    log = SequenceLog(pack_ids(range(100)))
    call = RestoreCall(incarnation="router-1", info=accepted.info, logs=(log,))

    answer = (await queue.restore(call)).value
    wrong = (await queue.restore(replace(call, logs=(SequenceLog(pack_ids([*range(90), 7])),)))).value

    snapshot = (await queue.look(accepted.info.id, TENANT)).value
    assert answer.code is RestoreCode.OK
    assert isinstance(snapshot, Snapshot)
    assert log_ids(snapshot.logs) == list(range(100))
    assert (wrong.code, wrong.offset) == (RestoreCode.DIVERGED, 90)
    assert await leader.claim() == ()  # it may be older than the hold


# --- messages ----------------------------------------------------------------------------------------------------


async def test_a_subscription_comes_back_by_itself(queue: RedisRequestQueue, raw: RedisConnections) -> None:
    messages = queue.listen("router-1")
    assert await anext(messages) == Subscribed()
    await raw.execute("CLIENT", "KILL", "TYPE", "pubsub")

    assert await anext(messages) == Subscribed()
    accepted = await submit(queue)
    await HandLeader(queue).claim()
    message = await anext(messages)

    assert isinstance(message, Published)
    assert message.id == accepted.info.id
    await messages.aclose()  # type: ignore[attr-defined]


async def test_a_silent_subscription_is_asked_and_lives_on(server: EmbeddedServer, raw: RedisConnections) -> None:
    queue = RedisRequestQueue(server.url, "lane", prefix="test", terms=replace(PATIENT, silence_ms=10))
    messages = queue.listen("leader-1")
    assert await anext(messages) == Subscribed()
    read = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0.2)  # real silence on a real connection

    await queue.drain("leader-1")

    assert await asyncio.wait_for(read, 20) == Wake()
    await messages.aclose()  # type: ignore[attr-defined]
    await queue.close()


async def test_a_subscription_waits_for_a_server_that_is_away(server: EmbeddedServer, queue: RedisRequestQueue) -> None:
    messages = queue.listen("router-1")
    assert await anext(messages) == Subscribed()
    os.kill(server.pid, signal.SIGKILL)
    read = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0.1)
    assert not read.done()

    server.restart()

    assert await asyncio.wait_for(read, 20) == Subscribed()
    await messages.aclose()  # type: ignore[attr-defined]


async def test_one_message_goes_to_a_router_for_a_whole_step(queue: RedisRequestQueue, raw: RedisConnections) -> None:
    for number in range(3):
        await submit(queue, number)
    leader = HandLeader(queue)
    granted = await leader.claim()
    before = int(parse_info(await raw.execute("INFO", "commandstats"))["cmdstat_spublish"].split(",")[0].split("=")[1])

    await leader.commit_all(*(CommitEntry(g.info.id, g.grant, (some(0, [1]),)) for g in granted))

    stats = parse_info(await raw.execute("INFO", "commandstats"))["cmdstat_spublish"]
    assert int(stats.split(",")[0].split("=")[1]) - before == 1


# --- keys --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def lane(server: EmbeddedServer, raw: RedisConnections) -> AsyncIterator[RedisLaneHarness]:
    harness = RedisLaneHarness(server.url)
    await harness.begin()
    await harness.queue().view()
    await harness.advance(harness.terms.hold_ms)
    yield harness
    await harness.close()


async def test_requests_that_are_over_leave_no_keys(lane: RedisLaneHarness) -> None:
    queue, identity = lane.queue(), await lane.identity()
    leader = HandLeader(queue)
    submissions = [
        a_submission(identity, n, tenant=f"t{n}", idempotency_key=f"k{n}", num_logprobs=0, store=n % 2 == 0)
        for n in range(4)
    ]
    for submission in submissions:
        await queue.submit("router-1", 1, submission)
    granted = await leader.claim(free_slots=3)
    logprob = pack_logprobs(1, -1.0, [], [], num_logprobs=0)
    await leader.commit(granted[0], SequenceCommit(0, 0, pack_ids([1]), logprob, STOP))
    await leader.commit(granted[1], SequenceCommit(0, 0, pack_ids([1]), logprob), error="broken")
    await leader.release(granted[2])
    for submission in submissions:
        await queue.cancel(submission.id, submission.tenant)
    await leader.beat()
    await lane.advance(600_000)

    for submission in submissions:
        await queue.look(submission.id, submission.tenant)
    for _ in range(8):  # a lease, without looking like an outage
        await queue.sweep(None)
        await lane.advance(1_000)

    assert set(await lane.keys()) == {"lane", "replica:leader-1", "usage"}


async def test_a_lane_that_is_never_idle_does_not_remember_every_tenant(
    lane: RedisLaneHarness, raw: RedisConnections
) -> None:
    await lane.queue().submit("router-1", 1, a_submission(await lane.identity(), tenant="busy"))
    [tenants] = await raw.execute("KEYS", "*:tenants")
    resting = tenants.replace(b":tenants", b":resting")
    await raw.execute("ZADD", resting, *(part for k in range(10_300) for part in (1 + k, f"t{k}")))

    await lane.queue().sweep(None)
    await lane.queue().sweep(None)

    assert await raw.execute("ZCARD", resting) == 10_000
    assert await raw.execute("ZRANGE", resting, 0, 0) == [b"t300"]


async def test_an_ended_request_has_an_expiry_on_each_key(lane: RedisLaneHarness, raw: RedisConnections) -> None:
    await lane.queue().submit("router-1", 1, a_submission(await lane.identity(), idempotency_key="k"))
    leader = HandLeader(lane.queue())
    granted = await leader.claim_one()
    await leader.commit(granted, some(0, [1]))
    names = [name for name in await raw.execute("KEYS", "*") if granted.info.id.encode() in name or b"idempo" in name]
    alive = [await raw.execute("PTTL", name) for name in names]

    await leader.commit(granted, some(1, [2], STOP))

    dead = [await raw.execute("PTTL", name) for name in names]
    assert (len(names), alive) == (3, [-1, -1, -1])
    assert all(0 < ttl <= 600_000 for ttl in dead)


async def test_a_request_without_retention_is_gone_after_its_end_was_told(lane: RedisLaneHarness) -> None:
    identity = await lane.identity()
    first, second = (a_submission(identity, n, retention_ms=0) for n in (1, 2))
    for submission in (first, second):
        await lane.queue().submit("router-1", 1, submission)

    ended = (await lane.queue().cancel(first.id, TENANT)).value
    assert isinstance(ended, Ended)
    call = RestoreCall(
        incarnation="router-1",
        info=replace(ended.info, submission=second),
        logs=(SequenceLog(pack_ids([1]), finish=STOP),),
        end=replace(ended.end, offsets=(1,)),
    )
    restored = (await lane.queue().restore(call)).value
    looks = [(await lane.queue().look(s.id, TENANT)).value for s in (first, second)]

    assert restored.code is RestoreCode.OK
    assert looks == [Gone(), Gone()]
    assert [key for key in await lane.keys() if first.id in key or second.id in key] == []
