"""Announced exporters in Redis: one sorted set, each exporter's JSON by the instant at which its announcement runs out.

Instants are seconds since 1970 of the hosts' own clocks: one that is wrong by some seconds shows an exporter for so
much longer or shorter.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.exporters import ANNOUNCED_S, Exporter, in_order
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.queue.lane_names import check_prefix
from shardline_cluster.queue.redis_key import RedisKey

CALL_TIMEOUT_S = 2.0


class RedisExporterList:
    """An `ExporterList` over `PREFIX:v1:exporters`. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, clock: Callable[[], float] = time.time) -> None:
        self._key = RedisKey(url, f"{check_prefix(prefix)}:v1:exporters", timeout_s=CALL_TIMEOUT_S)
        self._clock = clock

    async def announce(self, exporter: Exporter, *, for_s: float = ANNOUNCED_S) -> None:
        """See ExporterList. Sweeps out what has run out."""
        now = self._clock()
        await self._key.execute("ZADD", str(now + for_s), to_json(exporter))
        await self._key.execute("ZREMRANGEBYSCORE", "-inf", str(now))

    async def withdraw(self, exporter: Exporter) -> None:
        """See ExporterList."""
        await self._key.execute("ZREM", to_json(exporter))

    async def all(self) -> tuple[Exporter, ...]:
        """See ExporterList."""
        found = []
        for text in await self._key.execute("ZRANGEBYSCORE", f"({self._clock()}", "+inf"):
            with suppress(ConfigurationError):  # another version's
                found.append(from_json(Exporter, text))
        return in_order(found)

    async def close(self) -> None:
        """Closes connections."""
        await self._key.close()
