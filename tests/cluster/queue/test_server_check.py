"""A server that would break a promise is refused, with the cure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from shardline_cluster.queue.server_check import check_server, find_problems
from tests.cluster.queue.redis_servers import running_server, server_binaries

GOOD = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": "1", "role": "master"}


@pytest.mark.parametrize(
    ("change", "appendfsync", "cure"),
    [
        ({"redis_version": "6.2.1"}, "everysec", "7 or newer is needed"),
        ({"maxmemory_policy": "allkeys-lru"}, "everysec", "set `maxmemory-policy noeviction`"),
        ({"aof_enabled": "0"}, "everysec", "set `appendonly yes`"),
        ({}, "no", "set `appendfsync everysec`"),
        ({"cluster_enabled": "1"}, "everysec", "use a single server"),
        ({"role": "slave", "master_host": "db1"}, "everysec", "db1: give the master's address"),
    ],
)
def test_what_does_not_fit_is_said_with_its_cure(change: dict[str, str], appendfsync: str, cure: str) -> None:
    (problem,) = find_problems(GOOD | change, appendfsync, Durability.RELAXED)

    assert cure in problem


@pytest.mark.parametrize("appendfsync", ["everysec", "always", None])
def test_a_good_server_has_no_problems(appendfsync: str | None) -> None:
    assert find_problems(GOOD, appendfsync, Durability.RELAXED) == []


def test_valkey_tells_a_redis_version_of_its_own() -> None:
    assert find_problems(GOOD | {"redis_version": "6.0.0", "valkey_version": "9.1.2"}, None, Durability.RELAXED) == []


def test_without_durability_no_append_only_file_is_needed() -> None:
    assert find_problems(GOOD | {"aof_enabled": "0"}, "no", Durability.NONE) == []


@pytest.fixture(params=list(server_binaries().values()), ids=list(server_binaries()))
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    binary: Path = request.param
    with running_server(binary, Durability.RELAXED) as server:
        yield server.url


@pytest.mark.redis
async def test_a_running_server_is_checked(url: str) -> None:
    raw = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    await check_server(url, Durability.RELAXED)
    await raw.execute("CONFIG", "SET", "appendonly", "no", "maxmemory-policy", "allkeys-random")
    await raw.close()

    with pytest.raises(ConfigurationError, match=r"allkeys-random.*append-only file"):
        await check_server(url, Durability.RELAXED)


async def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(QueueUnavailableError, match="nowhere"):
        await check_server("unix:///nowhere", Durability.NONE)
