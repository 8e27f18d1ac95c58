"""What keys owe, in Redis: one small hash for each key, one script for all that is done to it, the server's clock."""

import hashlib
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from shardline_cluster.access.api_key import KeyLimits
from shardline_cluster.access.key_account import counted_limits
from shardline_cluster.access.rate_limiter import LIFE_MS, MOST_CHARGES, Charge, Limited, Refusal
from shardline_cluster.errors import ShardlineError
from shardline_cluster.queue.lane_names import limit_key
from shardline_cluster.queue.lane_scripts import server_prelude
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections

NUM_CONNECTIONS = 2
ANY_ATTEMPT = ""  # an end is that of the latest


class RedisRateLimiter:
    """A `RateLimiter` over one Redis or Valkey server. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, call_timeout_s: float, server: str | None = None) -> None:
        """`server` replaces the part of the script that knows the server's clock."""
        self._connections = RedisConnections(RedisAddress.parse(url), size=NUM_CONNECTIONS, timeout_s=call_timeout_s)
        self._prefix = prefix
        self._script = _load_script(server or server_prelude())
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    async def charge(self, key_id: str, limits: KeyLimits, charge: Charge) -> Refusal | None:
        """Charges a key for an attempt; None where that was taken, now or before."""
        refusal = await self._call("charge", key_id, limits, charge)
        if not refusal:
            return None
        kind, limit, used, wait_ms = refusal
        return Refusal(Limited(kind.decode()), limit, used, wait_ms)

    async def settle(self, key_id: str, limits: KeyLimits, request_id: str, *, used_tokens: int) -> None:
        """A request has ended and has used so many tokens in all."""
        await self._call("settle", key_id, limits, Charge(request_id, used_tokens, attempt=ANY_ATTEMPT))

    async def take_back(self, key_id: str, limits: KeyLimits, charge: Charge) -> None:
        """An attempt led to no new request."""
        await self._call("take_back", key_id, limits, charge)

    async def close(self) -> None:
        """Closes connections."""
        await self._connections.close()

    async def _call(self, name: str, key_id: str, limits: KeyLimits, what: Charge) -> Any:
        counted = counted_limits(limits)
        bounds = [counted.get(kind, 0) for kind in Limited]
        key = limit_key(self._prefix, key_id)
        told = (what.request_id, what.tokens, what.attempt)
        call: tuple[str | int, ...] = (1, key, name, *bounds, *told, MOST_CHARGES, LIFE_MS)
        try:
            try:
                return await self._connections.execute("EVALSHA", self._sha, *call)
            except NoScriptError:
                return await self._connections.execute("EVAL", self._script, *call)
        except ResponseError as error:
            raise ShardlineError(f"the script of the rate limits failed, a fault in Shardline: {error}") from error


def _load_script(server: str) -> str:
    """The line that tells Redis the script's flags must come first."""
    script = (files("shardline_cluster.access") / "scripts" / "rate_limit.lua").read_text("utf-8")
    return f"#!lua flags=allow-oom\n{server}\n{script}"
