"""Whether a Redis server is set up so that the token log's promises hold. What does not fit is said with its cure."""

import re
import secrets
from collections.abc import Mapping

from redis.exceptions import ResponseError

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.queue.durability import Durability, check_supported
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX, check_prefix
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections, is_forbidden, parse_info

OLDEST_MAJOR = 7  # sharded publish inside scripts, and flags of scripts
CHECK_TIMEOUT_S = 5.0
# Kinds of commands that our scripts use, on keys that are gone at the end.
_LIKE_OURS = """\
redis.call('HSET', KEYS[1] .. ':h', 'checked', 1)
redis.call('PEXPIRE', KEYS[1] .. ':h', 1000)
redis.call('HGETALL', KEYS[1] .. ':h')
redis.call('APPEND', KEYS[1] .. ':s', '1')
redis.call('ZADD', KEYS[1] .. ':z', 1, 'checked')
redis.call('RPUSH', KEYS[1] .. ':l', '1')
redis.call('SADD', KEYS[1] .. ':t', '1')
redis.call('DEL', KEYS[1] .. ':h', KEYS[1] .. ':s', KEYS[1] .. ':z', KEYS[1] .. ':l', KEYS[1] .. ':t')
redis.call('TIME')
redis.call('INFO', 'server')
redis.call('SPUBLISH', KEYS[1], '')
"""


async def check_server(url: str, durability: Durability, *, prefix: str = DEFAULT_PREFIX) -> None:
    """Looks at version, eviction, persistence, topology, and what this user may do with keys of the prefix.

    Raises:
        ConfigurationError: the server would break a promise; the message says how to set it up.
        QueueUnavailableError: it does not answer.
    """
    check_supported(durability)
    address = RedisAddress.parse(url)
    connections = RedisConnections(address, size=1, timeout_s=CHECK_TIMEOUT_S)
    try:
        info = parse_info(await connections.execute("INFO"))
        problems = find_problems(info, await setting(connections, "appendfsync"), durability)
        if not problems and (refusal := await missing_rights(connections, prefix)):
            problems = [f"its user may not do what Shardline needs ({refusal}): docs/security.md shows one that may"]
    finally:
        await connections.close()
    if problems:
        raise ConfigurationError(f"Redis at {address.shown} cannot be used: " + "; ".join(problems))


async def missing_rights(connections: RedisConnections, prefix: str) -> str | None:
    """What the server says where this user may not do what routers and replicas will do; None: he may.

    Leaves one of the connections listening to a channel: close them afterwards.

    Raises:
        QueueUnavailableError: it does not answer.
    """
    name = f"{check_prefix(prefix)}:v1:{{check-{secrets.token_hex(4)}}}"
    try:
        sha = await connections.execute("SCRIPT", "LOAD", _LIKE_OURS)
        await connections.execute("EVALSHA", sha, 1, name)
        await connections.execute("EVAL", _LIKE_OURS, 1, name)
        await connections.execute("SCAN", "0", "MATCH", name, "COUNT", 1)
        await connections.execute("SSUBSCRIBE", name)
    except ResponseError as error:
        return str(error)
    except QueueUnavailableError as error:
        if isinstance(error.__cause__, Exception) and is_forbidden(error.__cause__):
            return str(error.__cause__)
        raise
    return None


async def setting(connections: RedisConnections, name: str) -> str | None:
    """A setting, or None where the server does not tell: hosted ones forbid CONFIG, careful ones do not allow it."""
    try:
        found = await connections.execute("CONFIG", "GET", name)
    except ResponseError:
        return None
    except QueueUnavailableError as error:
        if isinstance(error.__cause__, Exception) and is_forbidden(error.__cause__):
            return None
        raise
    return found[1].decode() if found else None


def find_problems(info: Mapping[str, str], appendfsync: str | None, durability: Durability) -> list[str]:
    """What does not fit, each with its cure. `info` is what INFO told."""
    return [
        problem
        for problem in (
            _version_problem(info),
            _topology_problem(info),
            _eviction_problem(info),
            _persistence_problem(info, appendfsync, durability),
        )
        if problem is not None
    ]


def _version_problem(info: Mapping[str, str]) -> str | None:
    version = info.get("valkey_version") or info.get("redis_version", "")
    found = re.match(r"\d+", version)
    if found is None or int(found.group()) < OLDEST_MAJOR:
        return f"its version is {version or 'unknown'}, but {OLDEST_MAJOR} or newer is needed (or Valkey)"
    return None


def _topology_problem(info: Mapping[str, str]) -> str | None:
    if info.get("cluster_enabled") == "1":
        return "it runs in cluster mode, which is not supported yet: use a single server (`cluster-enabled no`)"
    if info.get("role", "master") != "master":
        return f"it is a {info['role']} of {info.get('master_host', 'another server')}: give the master's address"
    return None


def _eviction_problem(info: Mapping[str, str]) -> str | None:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return (
            f"maxmemory-policy is {policy}, which deletes accepted requests when memory is full: "
            "set `maxmemory-policy noeviction`"
        )
    return None


def _persistence_problem(info: Mapping[str, str], appendfsync: str | None, durability: Durability) -> str | None:
    if durability is Durability.NONE:
        return None
    if info.get("aof_last_write_status", "ok") != "ok":
        return "it cannot write its append-only file: make room on its disk, or see that it may write there"
    if info.get("aof_enabled") != "1":
        return (
            f"it keeps no append-only file, which durability `{durability.value}` needs: set `appendonly yes`, "
            "or choose durability `none` and accept that a restart of Redis loses everything"
        )
    if appendfsync == "no":
        return (
            f"appendfsync is no, but durability `{durability.value}` needs a write to disk every second: "
            "set `appendfsync everysec`"
        )
    return None
