"""Contract of every rate limiter: what a key is let in for, and when it may come again."""

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from shardline_cluster.access import key_account
from shardline_cluster.access.api_key import KeyLimits
from shardline_cluster.access.key_account import KeyAccount, counted_limits
from shardline_cluster.access.rate_limiter import (
    LARGEST_LIMIT,
    LIFE_MS,
    MOST_CHARGES,
    Charge,
    Limited,
    Refusal,
)
from tests.cluster.access.limiter_harness import (
    KEY,
    LimiterHarness,
    MemoryLimiterHarness,
    RedisLimiterHarness,
)
from tests.cluster.access.limiter_harness import (
    limits_harness as limits_harness,
)
from tests.cluster.queue.redis_servers import RedisServers, server_binaries
from tests.cluster.queue.redis_servers import redis_servers as redis_servers

MINUTE_MS = 60_000
TOKENS = KeyLimits(tokens_per_minute=600)  # ten a second
REQUESTS = KeyLimits(requests_per_minute=6)  # one in ten seconds


async def charge(harness: LimiterHarness, name: str, tokens: int = 1, limits: KeyLimits = TOKENS) -> Refusal | None:
    """One request."""
    return await harness.limiter.charge(KEY, limits, attempt(name, tokens))


def attempt(name: str, tokens: int = 1, number: int = 1) -> Charge:
    """What one attempt to submit a request costs."""
    return Charge(name, tokens, attempt=f"{number:x}")


async def settle(harness: LimiterHarness, name: str, used_tokens: int, limits: KeyLimits = TOKENS) -> None:
    """Its end."""
    await harness.limiter.settle(KEY, limits, name, used_tokens=used_tokens)


async def room(harness: LimiterHarness, limits: KeyLimits = TOKENS) -> int:
    """Tokens for which there is room now."""
    refusal = await charge(harness, "a probe", LARGEST_LIMIT, limits)
    if refusal is None:
        await harness.limiter.take_back(KEY, limits, attempt("a probe"))
        return limits.tokens_per_minute or 0
    return (limits.tokens_per_minute or 0) - refusal.used


# --- requests ----------------------------------------------------------------------------------------------------


async def test_a_minutes_worth_of_requests_is_let_in_at_once_and_no_more(limits_harness: LimiterHarness) -> None:
    answers = [await charge(limits_harness, f"r{i}", limits=REQUESTS) for i in range(7)]

    assert answers == [None] * 6 + [Refusal(Limited.REQUESTS, 6, 6, 10_000)]


async def test_after_exactly_the_time_that_was_told_a_request_is_let_in(limits_harness: LimiterHarness) -> None:
    for i in range(6):
        await charge(limits_harness, f"r{i}", limits=REQUESTS)
    await limits_harness.advance(3_333)
    refused = await charge(limits_harness, "late", limits=REQUESTS)
    assert refused is not None

    await limits_harness.advance(refused.retry_after_ms - 1)
    early = await charge(limits_harness, "late", limits=REQUESTS)
    await limits_harness.advance(1)

    assert refused.retry_after_ms == 6_667
    assert early == Refusal(Limited.REQUESTS, 6, 6, 1)
    assert await charge(limits_harness, "late", limits=REQUESTS) is None


async def test_keys_owe_separately(limits_harness: LimiterHarness) -> None:
    one = KeyLimits(requests_per_minute=1)
    await charge(limits_harness, "r1", limits=one)
    if isinstance(limits_harness, RedisLimiterHarness):
        await limits_harness.raw.execute(
            "SET", f"test:{limits_harness.prefix}:v1:{{limit:other}}:clock", limits_harness.now_ms, "EX", 60
        )

    other = await limits_harness.limiter.charge("other", one, attempt("r2"))

    assert other is None


async def test_a_key_without_limits_is_never_refused(limits_harness: LimiterHarness) -> None:
    answers = [await charge(limits_harness, f"r{i}", 10**6, KeyLimits()) for i in range(5)]

    assert answers == [None] * 5


# --- tokens ------------------------------------------------------------------------------------------------------


async def test_tokens_drain_at_the_rate_of_the_limit(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "all", 600)

    rooms = [await room(limits_harness)]
    for _ in range(2):
        await limits_harness.advance(15_000)
        rooms.append(await room(limits_harness))

    assert rooms == [0, 150, 300]


async def test_more_than_a_minutes_worth_counts_as_a_minutes_worth(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "small", 1)
    refused = await charge(limits_harness, "huge", 100_000)

    await limits_harness.advance(100)

    assert refused == Refusal(Limited.TOKENS, 600, 1, 100)
    assert await charge(limits_harness, "huge", 100_000) is None


async def test_what_was_reserved_and_not_used_is_given_back_once(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "r1", 400)
    await charge(limits_harness, "r2", 200)

    for _ in range(3):
        await settle(limits_harness, "r1", 150)

    assert await room(limits_harness) == 250


async def test_what_was_used_beyond_the_reserve_is_owed_too(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "huge", 100_000)

    await settle(limits_harness, "huge", 900)

    assert await charge(limits_harness, "next", 100) == Refusal(Limited.TOKENS, 600, 900, 40_000)


async def test_nobody_owes_more_than_drains_in_an_hour(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "huge", 100_000)

    await settle(limits_harness, "huge", 10**9)
    refused = await charge(limits_harness, "next", 600)

    assert refused is not None
    assert refused.retry_after_ms == LIFE_MS


async def test_a_request_that_was_not_accepted_costs_nothing(limits_harness: LimiterHarness) -> None:
    both = KeyLimits(requests_per_minute=1, tokens_per_minute=600)
    await charge(limits_harness, "r1", 600, both)

    for _ in range(2):
        await limits_harness.limiter.take_back(KEY, both, attempt("r1"))

    assert await charge(limits_harness, "r2", 600, both) is None


async def test_a_refused_request_costs_nothing_of_either_kind(limits_harness: LimiterHarness) -> None:
    both = KeyLimits(requests_per_minute=6, tokens_per_minute=600)
    await charge(limits_harness, "r1", 600, both)
    for i in range(20):
        await charge(limits_harness, f"refused {i}", 600, both)

    await limits_harness.advance(MINUTE_MS)

    answers = [await charge(limits_harness, f"r{i + 2}", 100, both) for i in range(6)]
    assert answers == [None] * 6


async def test_the_longer_wait_is_told(limits_harness: LimiterHarness) -> None:
    both = KeyLimits(requests_per_minute=1, tokens_per_minute=600)
    await charge(limits_harness, "r1", 600, both)

    few = await charge(limits_harness, "r2", 1, both)
    await limits_harness.advance(30_000)
    await settle(limits_harness, "r1", 1_200, both)
    many = await charge(limits_harness, "r3", 600, both)

    assert few == Refusal(Limited.REQUESTS, 1, 1, 60_000)
    assert many == Refusal(Limited.TOKENS, 600, 900, 90_000)


# --- the same request again --------------------------------------------------------------------------------------


async def test_an_attempt_that_is_sent_again_is_charged_once(limits_harness: LimiterHarness) -> None:
    both = KeyLimits(requests_per_minute=2, tokens_per_minute=600)

    answers = [await charge(limits_harness, "r1", 300, both) for _ in range(5)]
    other = await charge(limits_harness, "r2", 300, both)

    assert [*answers, other] == [None] * 6


async def test_another_attempt_is_charged_anew_and_taken_back_by_itself(limits_harness: LimiterHarness) -> None:
    both = KeyLimits(requests_per_minute=3, tokens_per_minute=600)
    limiter = limits_harness.limiter
    for number in (1, 2):
        await limiter.charge(KEY, both, attempt("r1", 200, number))

    await limiter.take_back(KEY, both, attempt("r1", 200, 1))
    after_the_first = await charge(limits_harness, "r2", 201, both)
    await limiter.take_back(KEY, both, attempt("r1", 200, 2))
    after_the_second = await charge(limits_harness, "r2", 400, both)
    third = await charge(limits_harness, "r3", 1, both)

    assert after_the_first == Refusal(Limited.TOKENS, 600, 400, 100)
    assert after_the_second is None
    assert third == Refusal(Limited.TOKENS, 600, 600, 100)


async def test_an_end_settles_the_latest_attempt(limits_harness: LimiterHarness) -> None:
    for number in (1, 2):
        await limits_harness.limiter.charge(KEY, TOKENS, attempt("r1", 200, number))

    for _ in range(2):
        await settle(limits_harness, "r1", 50)

    assert await room(limits_harness) == 600 - 200 - 50


async def test_only_the_latest_charges_are_remembered(
    limits_harness: LimiterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_account, "MOST_CHARGES", 8)
    monkeypatch.setattr("shardline_cluster.access.redis_rate_limiter.MOST_CHARGES", 8)
    for i in range(9):
        await charge(limits_harness, f"r{i}", 10)

    for i in range(9):
        await settle(limits_harness, f"r{i}", 0)

    assert await room(limits_harness) == 600 - 4 * 10


@pytest.mark.redis
@pytest.mark.parametrize("kind", list(server_binaries()))
async def test_what_redis_keeps_of_a_key_is_bounded_and_runs_out(kind: str, redis_servers: RedisServers) -> None:
    harness = RedisLimiterHarness(redis_servers.url(kind))
    await harness.advance(0)
    for i in range(MOST_CHARGES + 1):
        await harness.limiter.charge(KEY, KeyLimits(tokens_per_minute=10**9), attempt(f"lane-{i:032x}", number=2**60))

    fields = await harness.raw.execute("HLEN", harness.key)
    size = await harness.raw.execute("MEMORY", "USAGE", harness.key, "SAMPLES", 0)
    life_ms = await harness.raw.execute("PTTL", harness.key)
    await harness.close()

    assert fields == MOST_CHARGES // 2 + 1 + 6
    assert size < 128 << 10
    assert LIFE_MS - MINUTE_MS < life_ms <= LIFE_MS


async def test_a_key_that_rested_for_an_hour_owes_nothing(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "huge", 100_000)
    await settle(limits_harness, "huge", 10**9)

    await limits_harness.advance(LIFE_MS)

    assert await room(limits_harness) == 600


# --- limits and clocks that change -------------------------------------------------------------------------------


async def test_limits_that_change_count_at_once(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "r1", 600)

    raised = await charge(limits_harness, "r2", 600, KeyLimits(tokens_per_minute=60_000))
    lowered = await charge(limits_harness, "r2", 6, KeyLimits(tokens_per_minute=6))
    without = await charge(limits_harness, "r2", 600, KeyLimits())

    assert raised == Refusal(Limited.TOKENS, 60_000, 60_000, 600)
    assert lowered == Refusal(Limited.TOKENS, 6, 6, 60_000)
    assert without is None


async def test_a_clock_that_goes_back_holds_nobody_up_for_longer_than_a_minute(limits_harness: LimiterHarness) -> None:
    await charge(limits_harness, "r1", 600)
    await limits_harness.advance(-3_000_000)

    refused = await charge(limits_harness, "r2", 600)
    await limits_harness.advance(MINUTE_MS)

    assert refused == Refusal(Limited.TOKENS, 600, 600, MINUTE_MS)
    assert await charge(limits_harness, "r2", 600) is None


def test_no_limit_is_larger_than_what_is_counted_exactly() -> None:
    assert counted_limits(KeyLimits(tokens_per_minute=LARGEST_LIMIT + 1)) == {Limited.TOKENS: LARGEST_LIMIT}


# --- whatever comes ----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("charge", "charge", "charge", "settle", "take back", "limits")),
        st.sampled_from((0, 1, 7, 1_000, 9_999, 60_000, 4_000_000, -5_000)),  # ms before it
        st.integers(0, 5),  # which request
        st.sampled_from((0, 1, 13, 250, 700)),  # tokens
    ),
    max_size=60,
)
LIMITS = st.builds(
    KeyLimits,
    requests_per_minute=st.sampled_from((None, 1, 7, 60)),
    tokens_per_minute=st.sampled_from((None, 1, 7, 600, 999_999_999)),
)


async def _live_through(
    harness: LimiterHarness, steps: list[tuple[str, int, int, int]], limits: list[KeyLimits]
) -> list[Refusal | None]:
    answers, now = list[Refusal | None](), limits[0]
    for number, (what, ms, which, tokens) in enumerate(steps):
        await harness.advance(ms)
        if what == "charge":
            again = attempt(f"r{which}", tokens, number=tokens % 2)
            answers.append(await harness.limiter.charge(KEY, now, again))
        elif what == "settle":
            await settle(harness, f"r{which}", tokens, now)
        elif what == "take back":
            await harness.limiter.take_back(KEY, now, attempt(f"r{which}", number=tokens % 2))
        else:
            now = limits[number % len(limits)]
    return answers


@pytest.mark.redis
@pytest.mark.parametrize("kind", list(server_binaries()))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@example(  # a request that nobody knows moves the clock too
    [("charge", 0, 0, 0), ("take back", 1, 1, 0), ("charge", -5_000, 1, 0)], [KeyLimits(requests_per_minute=1)]
)
@given(STEPS, st.lists(LIMITS, min_size=1, max_size=3))
def test_both_limiters_answer_alike(
    kind: str, redis_servers: RedisServers, steps: list[tuple[str, int, int, int]], limits: list[KeyLimits]
) -> None:
    async def both() -> None:
        redis, memory = RedisLimiterHarness(redis_servers.url(kind)), MemoryLimiterHarness()
        try:
            assert await _live_through(redis, steps, limits) == await _live_through(memory, steps, limits)
        finally:
            await redis.close()

    asyncio.run(both())


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from((1, 7, 59, 600, 10**9)),
    st.lists(st.tuples(st.sampled_from((0, 1, 17, 900, 20_000)), st.integers(1, 700)), max_size=80),
)
def test_in_no_window_more_is_let_in_than_its_share_and_a_minutes_worth(
    limit: int, asked: list[tuple[int, int]]
) -> None:
    account, limits, now_ms = KeyAccount(0), {Limited.TOKENS: limit}, 0
    let_in: list[tuple[int, int]] = []  # instant, tokens

    for number, (ms, tokens) in enumerate(asked):
        now_ms += ms
        if account.charge(limits, attempt(f"r{number}", tokens), now_ms) is None:
            let_in.append((now_ms, min(tokens, limit)))

    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            window_ms = let_in[last][0] - let_in[first][0]
            assert sum(t for _, t in let_in[first : last + 1]) * MINUTE_MS <= limit * (MINUTE_MS + window_ms)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30_000), st.integers(1, 700)), max_size=60))
def test_what_is_used_in_the_long_run_stays_within_the_limit(steps: list[tuple[int, int, int]]) -> None:
    """Whatever is given back: over all its life a key has used no more than its share and a minute's worth."""
    limit, now_ms = 600, 0
    account, limits = KeyAccount(0), {Limited.TOKENS: limit}
    running: dict[str, int] = {}  # tokens reserved
    settled = 0

    for number, (what, ms, tokens) in enumerate(steps):
        now_ms += ms
        if what and account.charge(limits, attempt(f"r{number}", tokens), now_ms) is None:
            running[f"r{number}"] = min(tokens, limit)
        elif not what and running:
            request_id, reserved = running.popitem()
            settled += min(tokens, reserved)
            account.settle(limits, request_id, min(tokens, reserved), now_ms)
        assert (settled + sum(running.values())) * MINUTE_MS <= limit * (MINUTE_MS + now_ms)


@settings(max_examples=200, deadline=None)
@given(
    LIMITS,
    st.lists(
        st.tuples(st.sampled_from((0, 1, 333, 5_000)), st.sampled_from((1, 13, 250, 700))), min_size=1, max_size=40
    ),
)
def test_the_told_wait_is_right_to_the_millisecond(limits: KeyLimits, asked: list[tuple[int, int]]) -> None:
    account, counted, now_ms = KeyAccount(0), counted_limits(limits), 0
    for number, (ms, tokens) in enumerate(asked):
        now_ms += ms
        charged = attempt(f"r{number}", tokens)
        refused = account.charge(counted, charged, now_ms)
        if refused is None:
            continue

        early = account.charge(counted, charged, now_ms + refused.retry_after_ms - 1)
        on_time = account.charge(counted, charged, now_ms + refused.retry_after_ms)

        assert early is not None
        assert early.retry_after_ms == 1
        assert on_time is None
        now_ms += refused.retry_after_ms
