"""The rate limiter in Redis and its twin in memory under the same tests, on a clock that only the test moves."""

import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from shardline_cluster.access.memory_rate_limiter import MemoryRateLimiter
from shardline_cluster.access.rate_limiter import RateLimiter
from shardline_cluster.access.redis_rate_limiter import RedisRateLimiter
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.cluster.queue.redis_servers import RedisServers, server_binaries

START_MS = 1_700_000_000_000
CALL_TIMEOUT_S = 20.0  # the machine may be loaded
TEST_CLOCK = "local function now_ms() return tonumber(redis.call('GET', 'test:' .. KEYS[1] .. ':clock')) end"


class LimiterHarness(Protocol):
    """One rate limiter and the clock of one key, named KEY."""

    limiter: RateLimiter
    now_ms: int

    async def advance(self, ms: int) -> None:
        """Moves the clock."""
        ...

    async def close(self) -> None:
        """Gives back what the harness holds."""
        ...


KEY = "key-1"


class MemoryLimiterHarness:
    """The twin."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.limiter: RateLimiter = MemoryRateLimiter(now_ms=lambda: self.now_ms)

    async def advance(self, ms: int) -> None:
        self.now_ms += ms

    async def close(self) -> None:
        await self.limiter.close()


class RedisLimiterHarness:
    """A limiter under a prefix of its own in a shared server."""

    def __init__(self, url: str) -> None:
        self.now_ms = START_MS
        self.prefix = f"test-{secrets.token_hex(4)}"
        self.limiter: RateLimiter = RedisRateLimiter(
            url, prefix=self.prefix, call_timeout_s=CALL_TIMEOUT_S, server=TEST_CLOCK
        )
        self.raw = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=CALL_TIMEOUT_S)

    @property
    def key(self) -> str:
        return f"{self.prefix}:v1:{{limit:{KEY}}}"

    async def advance(self, ms: int) -> None:
        self.now_ms += ms
        await self.raw.execute("SET", f"test:{self.key}:clock", self.now_ms)

    async def close(self) -> None:
        await self.raw.execute("DEL", self.key, f"test:{self.key}:clock")
        await self.raw.close()
        await self.limiter.close()


@dataclass(frozen=True, slots=True)
class LimiterKind:
    """A kind of limiter, and how to open its harness."""

    name: str
    open: Callable[[pytest.FixtureRequest], Awaitable[LimiterHarness]]
    marks: tuple[pytest.MarkDecorator, ...] = ()


async def _open_memory(_request: pytest.FixtureRequest) -> LimiterHarness:
    return MemoryLimiterHarness()


async def _open_redis(request: pytest.FixtureRequest, *, kind: str) -> LimiterHarness:
    servers: RedisServers = request.getfixturevalue("redis_servers")
    harness = RedisLimiterHarness(servers.url(kind))
    await harness.advance(0)
    return harness


LIMITER_KINDS = (
    LimiterKind("memory", _open_memory),
    *(LimiterKind(kind, functools.partial(_open_redis, kind=kind), (pytest.mark.redis,)) for kind in server_binaries()),
)


@pytest.fixture(params=[pytest.param(kind, id=kind.name, marks=kind.marks) for kind in LIMITER_KINDS])
async def limits_harness(request: pytest.FixtureRequest) -> AsyncIterator[LimiterHarness]:
    """One for each kind."""
    kind: LimiterKind = request.param
    harness = await kind.open(request)
    yield harness
    await harness.close()
