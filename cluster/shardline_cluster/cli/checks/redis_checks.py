"""Whether a Redis server that is given keeps the token log's promises, and lets this user do what is needed."""

import time
from collections.abc import Iterator, Mapping

from shardline_cluster.cli.checks.finding import Finding, broken, doubtful, good
from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.lane_names import check_prefix
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections, parse_info
from shardline_cluster.queue.server_check import find_problems, missing_rights, setting

WITHIN_S = 5.0
# Nothing is decided by comparing clocks of machines, but logs and deadlines are read side by side.
_LARGE_SKEW_S = 2.0


async def redis_findings(url: str, *, prefix: str, durability: Durability) -> list[Finding]:
    """Looks at one server. Its password is in no finding."""
    try:
        address = RedisAddress.parse(url)
        check_prefix(prefix)
    except ConfigurationError as error:
        return [broken("Redis", "its address is wrong", f"{error}.")]
    connections = RedisConnections(address, size=1, timeout_s=WITHIN_S)
    try:
        info = parse_info(await connections.execute("INFO"))
        fsync = await setting(connections, "appendfsync")
        return [
            *server_findings(address.shown, info, fsync, durability),
            await _clock(connections),
            rights_finding(await missing_rights(connections, prefix)),
        ]
    except QueueUnavailableError as error:
        return [broken("Redis", f"{address.shown} does not serve", f"{error}.")]
    finally:
        await connections.close()


def server_findings(
    shown: str, info: Mapping[str, str], fsync: str | None, durability: Durability
) -> Iterator[Finding]:
    """Version, topology, eviction and persistence. `info` is what INFO told, `fsync` the setting appendfsync."""
    kind = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "of an unknown version")
    problems = find_problems(info, fsync, durability)
    for problem in problems:
        found, _, remedy = problem.partition(": ")
        yield broken("Redis", f"{shown}: {found}", f"In its configuration: {remedy}." if remedy else "")
    if not problems:
        persistence = f"append-only file, written every second ({fsync or 'not told'})"
        told = persistence if info.get("aof_enabled") == "1" else "nothing kept on disk"
        yield good("Redis", f"{shown} is {kind} {version}: {info.get('maxmemory_policy', 'noeviction')}, {told}")
    if info.get("maxmemory", "0") == "0" and info.get("total_system_memory", "0") != "0":
        yield doubtful(
            "memory of Redis",
            "maxmemory is not set, so the system may kill the server when memory is full",
            "Set `maxmemory` to what it may take: with noeviction new requests are refused then, and none is lost.",
        )


def rights_finding(refusal: str | None) -> Finding:
    """What trying out what Shardline does has brought: None, or what the server said to it."""
    if refusal is None:
        return good("rights in Redis", "scripts, keys and channels of this prefix")
    return broken("rights in Redis", refusal, "Give the user what the line in docs/security.md gives.")


def clock_finding(skew_s: float, *, taken_s: float) -> Finding:
    """How far the server's clock is from this machine's, known to `taken_s`."""
    if abs(skew_s) > _LARGE_SKEW_S + taken_s:
        return doubtful(
            "clock of Redis",
            f"{abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's",
            "Leases do not mind, but times in logs do: let both machines ask a time server (chrony, ntpd).",
        )
    return good("clock of Redis", f"within {max(abs(skew_s), taken_s):.2f} s of this machine's")


async def _clock(connections: RedisConnections) -> Finding:
    asked = time.time()
    seconds, microseconds = await connections.execute("TIME")
    taken_s = time.time() - asked
    server_time = int(seconds) + int(microseconds) / 1e6
    return clock_finding(server_time - asked - taken_s / 2, taken_s=taken_s)
