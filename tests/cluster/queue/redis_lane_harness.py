"""The queue in Redis under the shared tests: the same scripts, but behind a prelude that reads clock and identity from
two keys, so that hours pass in no time and a server becomes another one without a restart.
"""

import functools
import itertools
import secrets
from collections.abc import Mapping

import pytest
from redis.asyncio.connection import AbstractConnection

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.lane_names import LaneNames
from shardline_cluster.queue.lane_scripts import LaneScript, load_lane_scripts
from shardline_cluster.queue.published import QueueMessage
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.redis_subscription import open_message
from shardline_cluster.queue.request_queue import Reply, RequestQueue
from shardline_cluster.queue.terms import QueueTerms
from tests.cluster.queue.lane_harness import HarnessKind
from tests.cluster.queue.redis_servers import RedisServers, server_binaries

START_MS = 1_700_000_000_000
CALL_TIMEOUT_S = 20.0  # the machine may be loaded
TEST_SERVER = """
local function now_ms()
  return tonumber(redis.call('GET', 'test:' .. KEYS[1] .. ':clock'))
end
local function server_identity()
  return redis.call('GET', 'test:' .. KEYS[1] .. ':identity')
end
"""


@functools.cache
def scripts_on_a_test_clock() -> Mapping[str, LaneScript]:
    """The product's scripts behind the test's prelude."""
    return load_lane_scripts(TEST_SERVER)


# One call each: the random schedules do this many times.
READ_LANE = """
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('DUMP', key)
end
return found
"""
REPLACE_LANE = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  redis.call('DEL', key)
end
for i = 2, #ARGV, 2 do
  redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1])
end
"""


class _BreakableQueue(RedisRequestQueue):
    """A queue whose calls fail during an outage."""

    down = False

    async def _call(
        self, name: str, *arguments: str | bytes | int, connections: RedisConnections | None = None
    ) -> Reply[bytes]:
        if self.down:
            raise QueueUnavailableError("the test's outage: send the same call again")
        return await super()._call(name, *arguments, connections=connections)


class RedisLaneHarness:
    """A lane under a prefix of its own in a shared server. Snapshots are DUMPs of its keys."""

    def __init__(self, url: str, terms: QueueTerms | None = None) -> None:
        self.terms = terms or QueueTerms()
        self._address = RedisAddress.parse(url)
        self._names = LaneNames(f"test-{secrets.token_hex(4)}", "lane")
        self._raw = RedisConnections(self._address, size=1, timeout_s=CALL_TIMEOUT_S)
        self._queue = _BreakableQueue(
            url, "lane", prefix=self._names.prefix, terms=self.terms, scripts=scripts_on_a_test_clock()
        )
        for connections in (self._queue._calls, self._queue._commits):
            connections._timeout_s = CALL_TIMEOUT_S
        self._watched: dict[str, AbstractConnection] = {}
        self._generations = itertools.count()
        self._clock_ms = START_MS
        self._identity = ""

    def queue(self) -> RequestQueue:
        return self._queue

    async def reset(self) -> None:
        self._queue.down = False
        await self._stop_watching()
        await self.rollback(None)

    async def begin(self) -> None:
        """Sets clock and identity of a new harness."""
        await self.advance(0)
        await self._become_another()

    async def now_ms(self) -> int:
        return self._clock_ms

    async def advance(self, ms: int) -> None:
        self._clock_ms += ms
        await self._raw.execute("SET", self._test_key("clock"), self._clock_ms)

    async def identity(self) -> str:
        return self._identity

    async def snapshot(self) -> object:
        return await self._raw.execute("EVAL", READ_LANE, 0, self._all_keys)

    async def rollback(self, snapshot: object | None) -> str:
        assert snapshot is None or isinstance(snapshot, list), "a snapshot of this harness"
        await self._raw.execute("EVAL", REPLACE_LANE, 0, self._all_keys, *(snapshot or []))
        return await self._become_another()

    async def set_outage(self, down: bool) -> None:
        self._queue.down = down

    async def watch(self, incarnation: str) -> None:
        connection = self._address.connection(timeout_s=CALL_TIMEOUT_S)
        await connection.connect()  # type: ignore[no-untyped-call]
        channels = (self._names.wake_channel(incarnation), self._names.tokens_channel(incarnation))
        await connection.send_command("SSUBSCRIBE", *channels)
        for _ in channels:
            await connection.read_response()
        self._watched[incarnation] = connection

    async def published(self, incarnation: str) -> list[QueueMessage]:
        """What the server wrote to the subscriber before it answered this PING."""
        connection, messages = self._watched[incarnation], list[QueueMessage]()
        await connection.send_command("PING")
        while (reply := await connection.read_response())[0] != b"pong":
            messages.extend(open_message(reply, self._names.wake_channel(incarnation)))
        return messages

    async def close(self) -> None:
        await self._stop_watching()
        await self.rollback(None)
        await self._raw.execute("DEL", self._test_key("clock"), self._test_key("identity"))
        await self._raw.close()
        await self._queue.close()

    async def keys(self) -> list[str]:
        """Names of the lane's keys, without what they share."""
        found: list[bytes] = await self._raw.execute("KEYS", self._all_keys)
        return sorted(key.decode().removeprefix(self._names.base) for key in found)

    @property
    def _all_keys(self) -> str:
        return f"{self._names.prefix}:*"

    def _test_key(self, name: str) -> str:
        return f"test:{self._names.lane_key}:{name}"

    async def _become_another(self) -> str:
        self._identity = f"server-{next(self._generations)}"
        await self._raw.execute("SET", self._test_key("identity"), self._identity)
        return self._identity

    async def _stop_watching(self) -> None:
        for connection in self._watched.values():
            await connection.disconnect(nowait=True)
        self._watched.clear()


def redis_harness_kinds() -> tuple[HarnessKind, ...]:
    """A kind for each server program on this machine."""
    return tuple(_harness_kind(kind) for kind in server_binaries())


def _harness_kind(kind: str) -> HarnessKind:
    async def open_harness(request: pytest.FixtureRequest) -> RedisLaneHarness:
        servers: RedisServers = request.getfixturevalue("redis_servers")
        harness = RedisLaneHarness(servers.url(kind))
        await harness.begin()
        return harness

    return HarnessKind(kind, open_harness, (pytest.mark.redis,))
