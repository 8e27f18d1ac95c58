"""Limits of keys over real gRPC: routers on loopback, the queue in memory, a scripted leader."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.access.api_key import KeyLimits
from shardline_cluster.access.memory_rate_limiter import MemoryRateLimiter
from shardline_cluster.access.rate_limiter import Charge, RateLimiter, Refusal
from shardline_cluster.access.redis_rate_limiter import RedisRateLimiter
from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.calls import LaneBounds
from shardline_cluster.router.streams.token_streams import TokenStreams
from shardline_protos import generation_pb2 as pb
from shardline_protos.status_details_pb2 import RetryInfo, Status
from tests.cluster.queue.redis_servers import RedisServers, server_binaries
from tests.cluster.queue.redis_servers import redis_servers as redis_servers
from tests.cluster.router.limited_gate import LimitedGate, showing
from tests.cluster.router.router_bench import (
    RouterBench,
    RunningRouter,
    kinds,
    next_of_kind,
    open_bench,
    read_all,
    request,
)
from tests.cluster.router.scripted_leader import STOP

SHORT = pb.SamplingParams(max_tokens=10)


@dataclass
class LimitsBench:
    """Two routers with one gate and one count, on a clock that the test moves."""

    routers: RouterBench
    gate: LimitedGate = field(default_factory=LimitedGate)
    now_ms: int = 1_700_000_000_000

    def __post_init__(self) -> None:
        self.limiter: RateLimiter = MemoryRateLimiter(now_ms=lambda: self.now_ms)

    async def start(self) -> RunningRouter:
        return await self.routers.start_router(gate=self.gate, limiter=self.limiter)


@pytest.fixture
async def bench() -> AsyncIterator[LimitsBench]:
    async with open_bench() as routers:
        yield LimitsBench(routers)


def generate(router: RunningRouter, key_id: str = "alice", text: str = "hi", **changes: Any) -> Any:
    """A call that shows a key."""
    ask = request(text, **({"sampling": SHORT} | changes))
    return router.stub.Generate(ask, metadata=showing(key_id))


async def accepted(router: RunningRouter, key_id: str = "alice", **changes: Any) -> Any:
    """A stream whose request was accepted."""
    stream = generate(router, key_id, **changes)
    await next_of_kind(stream, "accepted")
    return stream


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read_all(call)
    return raised.value


def retry_after_ms(error: grpc.aio.AioRpcError) -> int:
    """As told twice, which must agree."""
    told = dict(error.trailing_metadata())
    details = Status.FromString(told["grpc-status-details-bin"]).details
    [info] = [RetryInfo.FromString(d.value) for d in details if d.type_url.endswith("google.rpc.RetryInfo")]
    assert int(told["retry-after-ms"]) == info.retry_delay.ToMilliseconds()
    return int(told["retry-after-ms"])


# --- requests a minute -----------------------------------------------------------------------------------------------


@pytest.mark.redis
@pytest.mark.parametrize("kind", list(server_binaries()))
async def test_two_routers_keep_one_limit_in_redis(kind: str, redis_servers: RedisServers) -> None:
    async with open_bench() as bench:
        prefix, gate = f"test-{secrets.token_hex(4)}", LimitedGate(alice=KeyLimits(requests_per_minute=2))
        limiters = [RedisRateLimiter(redis_servers.url(kind), prefix=prefix, call_timeout_s=20) for _ in range(2)]
        one, other = [await bench.start_router(gate=gate, limiter=limiter) for limiter in limiters]
        await accepted(one)
        await accepted(other)

        errors = [await refused(generate(router)) for router in (one, other)]

        waiting = (await bench.queue().view()).value.waiting_requests
        for limiter in limiters:
            await limiter.close()
        assert [error.code() for error in errors] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
        assert all(0 < retry_after_ms(error) <= 30_000 for error in errors)
        assert waiting == 2


async def test_a_refusal_says_whose_limit_it_is_and_when_to_come_again(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=2), "bob": KeyLimits(requests_per_minute=2)}
    router = await bench.start()
    for _ in range(2):
        await accepted(router)

    error = await refused(generate(router))
    await accepted(router, "bob")
    bench.now_ms += retry_after_ms(error) - 1
    early = await refused(generate(router))
    bench.now_ms += 1
    await accepted(router)

    assert error.details() == (
        "the key alice may use 2 requests a minute and has used 2, too many for this request: try again in 30 s, "
        "or ask whoever runs the cluster for more"
    )
    assert (retry_after_ms(error), retry_after_ms(early)) == (30_000, 1)


async def test_a_retry_with_the_same_idempotency_key_and_a_resume_are_not_charged(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=1, tokens_per_minute=12)}
    one, other = await bench.start(), await bench.start()
    stream = await accepted(one, idempotency_key="k")
    request_id = await bench.routers.claim()

    again = await accepted(other, idempotency_key="k")
    await bench.routers.say(request_id, "yes", finish=STOP)
    ended = [await read_all(s) for s in (stream, again)]
    after_its_end = await read_all(generate(other, idempotency_key="k"))
    resumed = await read_all(other.stub.Resume(pb.ResumeRequest(request_id=request_id), metadata=showing("alice")))
    new = await refused(generate(other))

    assert [kinds(events)[-1] for events in (*ended, after_its_end, resumed)] == ["finished"] * 4
    assert new.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def run_and_forget(bench: LimitsBench, router: RunningRouter, *, idempotency_key: str) -> None:
    """A request from its acceptance to its deletion."""
    stream = await accepted(router, idempotency_key=idempotency_key)
    request_id = await bench.routers.claim()
    await bench.routers.say(request_id, "yes", finish=STOP)
    await read_all(stream)
    await router.stub.Forget(pb.ForgetRequest(request_id=request_id), metadata=showing("alice"))


async def test_a_request_that_was_forgotten_and_is_sent_again_is_charged_again(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=2)}
    router = await bench.start()

    for _ in range(2):
        await run_and_forget(bench, router, idempotency_key="k")

    error = await refused(generate(router, idempotency_key="k"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_that_is_forgotten_just_before_it_is_sent_again_is_charged_or_ended(
    bench: LimitsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=1)}
    router = await bench.start()
    stream = await accepted(router, idempotency_key="k")
    request_id = await bench.routers.claim()
    await bench.routers.say(request_id, "yes", finish=STOP)
    await read_all(stream)
    knows = TokenStreams.knows

    async def knows_and_loses(streams: TokenStreams, request_id: str, tenant: str) -> bool:
        known = await knows(streams, request_id, tenant)
        await streams.forget(request_id, tenant)
        return known

    monkeypatch.setattr(TokenStreams, "knows", knows_and_loses)
    error = await refused(generate(router, idempotency_key="k"))
    bench.now_ms += 60_000
    monkeypatch.setattr(TokenStreams, "knows", knows)
    status = await router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id), metadata=showing("alice"))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status.state == pb.REQUEST_STATE_CANCELLED
    monkeypatch.setattr(TokenStreams, "knows", knows_and_loses)
    await accepted(router, idempotency_key="k")
    assert (await refused(generate(router))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_attempt_that_finds_a_duplicate_after_all_costs_nothing(
    bench: LimitsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=2)}
    router = await bench.start()
    await accepted(router, idempotency_key="k")

    async def knows_nothing(*_: Any) -> bool:
        return False

    monkeypatch.setattr(TokenStreams, "knows", knows_nothing)
    for _ in range(3):
        await accepted(router, idempotency_key="k")

    await accepted(router)
    assert (await refused(generate(router))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_limits_that_change_count_at_once(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=1)}
    router = await bench.start()
    await accepted(router)

    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=600)}
    raised = await refused(generate(router))
    bench.gate.limits = {"alice": KeyLimits()}

    assert retry_after_ms(raised) == 100
    await accepted(router)


async def test_a_request_that_the_queue_refuses_costs_nothing(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=1)}
    router = await bench.start()
    await bench.routers.queue().configure(LaneBounds(max_waiting_requests=0))
    full = await refused(generate(router))

    await bench.routers.queue().configure(LaneBounds())

    assert full.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "queue is full" in str(full.details())
    assert retry_after_ms(full) > 0
    await accepted(router)


# --- tokens a minute -------------------------------------------------------------------------------------------------


async def test_prompt_and_all_outputs_are_reserved(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(tokens_per_minute=60)}
    router = await bench.start()
    await accepted(router, text="12345", sampling=pb.SamplingParams(n=3, max_tokens=15, prompt_logprobs=0))

    error = await refused(generate(router, text="12345", sampling=pb.SamplingParams(max_tokens=6)))
    await accepted(router, text="12345", sampling=pb.SamplingParams(max_tokens=5))

    assert "may use 60 tokens a minute and has used 50" in str(error.details())
    assert retry_after_ms(error) == 1_000


async def test_what_was_not_used_is_given_back_at_the_end(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(tokens_per_minute=60)}
    one, other = await bench.start(), await bench.start()
    stream = await accepted(one, sampling=pb.SamplingParams(max_tokens=58))
    before = await refused(generate(other, sampling=pb.SamplingParams(max_tokens=50)))
    request_id = await bench.routers.claim()

    await bench.routers.say(request_id, "12345", finish=STOP)
    await read_all(stream)

    assert before.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await accepted(other, sampling=pb.SamplingParams(max_tokens=51))


async def test_an_end_that_is_told_by_cancel_or_asked_for_settles_too(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(tokens_per_minute=60)}
    router, shown = await bench.start(), showing("alice")
    rooms = []
    for ends_itself in (True, False):
        stream = generate(router, sampling=pb.SamplingParams(max_tokens=50), background=True)
        request_id = (await next_of_kind(stream, "accepted")).request_id
        await bench.routers.claim()
        await bench.routers.say(request_id, "12345", finish=STOP if ends_itself else None)

        if ends_itself:
            await router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id), metadata=shown)
        else:
            await router.stub.Cancel(pb.CancelRequest(request_id=request_id), metadata=shown)

        error = await refused(generate(router, sampling=pb.SamplingParams(max_tokens=58)))
        rooms.append(str(error.details()))
        bench.now_ms += 60_000

    assert all("has used 7," in room for room in rooms)


async def test_a_request_without_max_tokens_runs_alone(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(tokens_per_minute=60)}
    router = await bench.start()
    await accepted(router, sampling=pb.SamplingParams())

    error = await refused(generate(router, sampling=pb.SamplingParams(max_tokens=1)))

    assert "has used 60" in str(error.details())


async def test_a_prompt_beyond_a_whole_minute_is_refused_for_good(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(tokens_per_minute=60)}
    router = await bench.start()

    error = await refused(generate(router, text="x" * 61))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "61 tokens, but the key alice may use 60 tokens a minute" in str(error.details())
    assert "retry-after-ms" not in dict(error.trailing_metadata())
    await accepted(router, text="x" * 60)


# --- a count that does not answer ------------------------------------------------------------------------------------


class ForgetfulAnswers:
    """A limiter whose first answers are lost after the call was carried out."""

    def __init__(self, inner: RateLimiter, to_lose: int) -> None:
        self._inner = inner
        self.to_lose = to_lose
        self.num_calls = 0

    def _lose(self) -> None:
        self.num_calls += 1
        if self.to_lose:
            self.to_lose -= 1
            raise QueueUnavailableError("Redis at 10.0.0.7 gave no answer")

    async def charge(self, key_id: str, limits: KeyLimits, charge: Charge) -> Refusal | None:
        answer = await self._inner.charge(key_id, limits, charge)
        self._lose()
        return answer

    async def settle(self, key_id: str, limits: KeyLimits, request_id: str, *, used_tokens: int) -> None:
        await self._inner.settle(key_id, limits, request_id, used_tokens=used_tokens)
        self._lose()

    async def take_back(self, key_id: str, limits: KeyLimits, charge: Charge) -> None:
        await self._inner.take_back(key_id, limits, charge)
        self._lose()

    async def close(self) -> None:
        await self._inner.close()


async def test_a_charge_whose_answer_was_lost_is_sent_again_and_counts_once(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=2)}
    bench.limiter = ForgetfulAnswers(bench.limiter, to_lose=2)
    router = await bench.start()

    for _ in range(2):
        await accepted(router)

    assert (await refused(generate(router))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_where_nobody_can_say_what_a_key_has_used_it_is_told_to_come_again(bench: LimitsBench) -> None:
    bench.gate.limits = {"alice": KeyLimits(requests_per_minute=2), "bob": KeyLimits()}
    bench.limiter = limiter = ForgetfulAnswers(bench.limiter, to_lose=10**6)
    router = await bench.start()
    began = time.monotonic()

    error = await refused(generate(router))
    calls = limiter.num_calls
    await accepted(router, "bob")

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "nobody can say now what this key has used: try again"
    assert retry_after_ms(error) == 1_000
    assert time.monotonic() - began < 20
    assert limiter.num_calls == calls, "a key without limits asks nobody"
    assert (await bench.routers.queue().view()).value.waiting_requests == 1
