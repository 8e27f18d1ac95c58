"""The lease of a cluster's controller in Redis: one key with a time to live, whose value is the holder."""

from shardline_cluster.fleet.controller_lease import LEASE_S, NotInChargeError
from shardline_cluster.queue.lane_names import controller_lease_key
from shardline_cluster.queue.redis_key import RedisKey

CALL_TIMEOUT_S = 1.0  # a lease outlives a few renewals that are not answered

# KEYS[1] the lease; ARGV: holder, milliseconds. Answers who has it then.
_RENEW = """\
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RedisControllerLease:
    """A `ControllerLease` over one key. Belongs to one event loop."""

    def __init__(self, url: str, *, prefix: str, cluster: str, holder: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._key = RedisKey(url, controller_lease_key(prefix, cluster), timeout_s=timeout_s)
        self._cluster = cluster
        self._holder = holder

    async def renew(self) -> None:
        """See `ControllerLease`."""
        answer = await self._key.evaluate(_RENEW, self._holder, round(LEASE_S * 1000))
        if answer.decode() != self._holder:
            raise NotInChargeError(self._cluster, answer.decode())

    async def holder(self) -> str:
        """See `ControllerLease`."""
        answer = await self._key.execute("GET")
        return answer.decode() if answer is not None else ""

    async def release(self) -> None:
        """See `ControllerLease`."""
        await self._key.evaluate(_RELEASE, self._holder)

    async def close(self) -> None:
        """See `ControllerLease`."""
        await self._key.close()
