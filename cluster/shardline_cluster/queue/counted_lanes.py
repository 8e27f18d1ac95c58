"""Which lanes a server has counted usage in, found by the names of its keys.

No list of lanes is kept: a lane outlives its deployment, and what was used there must not be overlooked. Looking
through all names takes time by their number, in small steps between which others are served; it is meant for people.
"""

import re

from shardline_cluster.queue.lane_names import check_prefix
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections

KEYS_A_STEP = 1000
_GLOB = re.compile(r"([*?\[\]\\])")  # what means something in a pattern of SCAN


class CountedLanes:
    """The lanes under one prefix of one server. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, call_timeout_s: float) -> None:
        self._connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=call_timeout_s)
        self._pattern = _GLOB.sub(r"\\\1", check_prefix(prefix)) + ":v1:{*}:usage"
        # Clients choose a part of some keys' names (idempotency keys), so that the pattern alone would not do.
        self._name = re.compile(rf"{re.escape(prefix)}:v1:\{{([^{{}}]+)\}}:usage".encode())

    async def names(self) -> tuple[str, ...]:
        """In order.

        Raises:
            QueueUnavailableError: the server did not answer.
        """
        found: set[str] = set()
        cursor = "0"
        while True:
            step = await self._connections.execute("SCAN", cursor, "MATCH", self._pattern, "COUNT", KEYS_A_STEP)
            cursor = step[0].decode()
            found.update(match[1].decode() for key in step[1] if (match := self._name.fullmatch(key)))
            if cursor == "0":
                return tuple(sorted(found))

    async def close(self) -> None:
        """Closes connections."""
        await self._connections.close()
