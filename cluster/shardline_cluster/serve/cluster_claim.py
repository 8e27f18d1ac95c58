"""Sees to it that no other controller keeps the cluster that `serve` is about to keep."""

import asyncio
from collections.abc import Callable

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.controller_lease import LEASE_S, ControllerLease
from shardline_cluster.fleet.redis_controller_lease import RedisControllerLease

POLL_S = 0.2
PATIENCE_S = LEASE_S + 2.0  # the lease of one that was killed is over by then


async def wait_until_free(url: str, *, prefix: str, cluster: str, say: Callable[[str], None]) -> None:
    """Waits as long as a dead controller's lease may last.

    Raises:
        ConfigurationError: a living one keeps the cluster.
        QueueUnavailableError: Redis did not answer.
    """
    lease = RedisControllerLease(url, prefix=prefix, cluster=cluster, holder="")
    try:
        await _free(lease, cluster, say)
    finally:
        await lease.close()


async def _free(lease: ControllerLease, cluster: str, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + PATIENCE_S
    told = ""
    while holder := await lease.holder():
        if loop.time() >= give_up_s:
            raise ConfigurationError(
                f"a cluster named {cluster!r} is kept by another controller ({holder}) on the same Redis: stop that "
                "one, or give this one another --name or --redis-prefix"
            )
        if holder != told:
            say(f"waiting: the cluster {cluster!r} was kept by another controller a moment ago ({holder})")
            told = holder
        await asyncio.sleep(POLL_S)
