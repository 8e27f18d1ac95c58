"""What is told of a Redis server: a good one, one that is set up badly, and a user with too few rights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline_cluster.cli.checks.finding import Finding, Level
from shardline_cluster.cli.checks.redis_checks import clock_finding, redis_findings, server_findings
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.cluster.queue.redis_servers import running_server, server_binaries

GOOD = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": "1", "maxmemory": "1"}


@pytest.fixture(params=list(server_binaries().values()), ids=list(server_binaries()))
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    binary: Path = request.param
    with running_server(binary, Durability.RELAXED) as server:
        yield server.url


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings}


def test_a_problem_is_told_with_its_cure_as_the_remedy() -> None:
    (finding,) = server_findings(
        "redis://h:1", GOOD | {"maxmemory_policy": "allkeys-lru"}, "everysec", Durability.RELAXED
    )

    assert finding.level is Level.BROKEN
    assert finding.found.startswith("redis://h:1: maxmemory-policy is allkeys-lru")
    assert "set `maxmemory-policy noeviction`" in finding.remedy


def test_memory_without_a_bound_is_doubtful() -> None:
    told = levels(
        list(server_findings("r", GOOD | {"maxmemory": "0", "total_system_memory": "9"}, None, Durability.RELAXED))
    )

    assert told == {"Redis": Level.GOOD, "memory of Redis": Level.DOUBTFUL}


@pytest.mark.parametrize(
    ("skew_s", "taken_s", "level"), [(0.5, 0.0, Level.GOOD), (-7.0, 0.1, Level.DOUBTFUL), (3.0, 4.0, Level.GOOD)]
)
def test_a_clock_is_told_only_where_it_is_surely_wrong(skew_s: float, taken_s: float, level: Level) -> None:
    assert clock_finding(skew_s, taken_s=taken_s).level is level


async def test_an_address_that_is_none_is_told_without_its_password() -> None:
    (finding,) = await redis_findings("http://:secret@h:1", prefix="p", durability=Durability.RELAXED)

    assert finding.level is Level.BROKEN
    assert "secret" not in finding.line()


@pytest.mark.redis
async def test_a_good_server_is_well_in_all_points_and_keeps_no_trace(url: str) -> None:
    findings = await redis_findings(url, prefix="p", durability=Durability.RELAXED)

    told = levels(findings)
    assert told["Redis"] is told["rights in Redis"] is told["clock of Redis"] is Level.GOOD
    raw = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    assert await raw.execute("DBSIZE") == 0
    await raw.close()


@pytest.mark.redis
async def test_a_user_with_too_few_rights_is_told(url: str) -> None:
    raw = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    await raw.execute("ACL", "SETUSER", "little", "on", ">secret", "~p:*", "&p:*", "+@all", "-zadd")
    await raw.close()
    with_user = url.replace("unix://", "unix://little:secret@")

    findings = await redis_findings(with_user, prefix="p", durability=Durability.RELAXED)
    elsewhere = await redis_findings(with_user, prefix="other", durability=Durability.RELAXED)

    assert levels(findings)["rights in Redis"] is Level.BROKEN
    assert "secret" not in " ".join(finding.line() for finding in [*findings, *elsewhere])
    assert Level.BROKEN in levels(elsewhere).values()
