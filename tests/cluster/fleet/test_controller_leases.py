"""A cluster's lease belongs to one holder at a time, in Redis as in memory, and ends with him."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from shardline_cluster.fleet import redis_controller_lease
from shardline_cluster.fleet.controller_lease import LEASE_S, ControllerLease, NotInChargeError
from shardline_cluster.fleet.memory_controller_lease import LeaseTable, MemoryControllerLease
from shardline_cluster.fleet.redis_controller_lease import RedisControllerLease
from tests.cluster.queue.redis_servers import running_server, server_binaries

OpenLease = Callable[..., ControllerLease]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(next(iter(server_binaries().values()))) as server:
        yield server.url


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def open_lease(request: pytest.FixtureRequest) -> AsyncIterator[OpenLease]:
    opened: list[ControllerLease] = []
    table = LeaseTable(lambda: 1_000.0)
    if request.param == "redis":
        server_url = request.getfixturevalue("url")

    def lease(holder: str, cluster: str = "c") -> ControllerLease:
        if request.param == "memory":
            opened.append(MemoryControllerLease(table, cluster=cluster, holder=holder))
        else:
            prefix = f"t-{request.node.originalname}"
            made = RedisControllerLease(server_url, prefix=prefix, cluster=cluster, holder=holder, timeout_s=20)
            opened.append(made)
        return opened[-1]

    yield lease
    for one in opened:
        await one.close()


async def test_the_first_who_asks_has_it_and_others_are_told_who(open_lease: OpenLease) -> None:
    first, second = open_lease("a"), open_lease("b")
    nobody = await second.holder()

    await first.renew()
    await first.renew()

    assert nobody == ""
    assert await second.holder() == "a"
    with pytest.raises(NotInChargeError, match=r"\(a\) keeps the replicas of the cluster 'c'"):
        await second.renew()


async def test_clusters_do_not_hinder_each_other(open_lease: OpenLease) -> None:
    await open_lease("a", "c").renew()

    await open_lease("b", "d").renew()


async def test_only_its_holder_gives_it_back(open_lease: OpenLease) -> None:
    first, second = open_lease("a"), open_lease("b")
    await first.renew()

    await second.release()
    after_another = await first.holder()
    await first.release()

    assert after_another == "a"
    await second.renew()


async def test_in_memory_it_ends_by_itself() -> None:
    now_s = 1_000.0
    table = LeaseTable(lambda: now_s)
    await MemoryControllerLease(table, cluster="c", holder="a").renew()

    now_s += LEASE_S

    await MemoryControllerLease(table, cluster="c", holder="b").renew()


@pytest.mark.redis
async def test_in_redis_it_ends_by_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_controller_lease, "LEASE_S", 0.001)
    first = RedisControllerLease(url, prefix="t-ends", cluster="c", holder="a", timeout_s=20)
    await first.renew()

    while await first.holder():
        pass

    second = RedisControllerLease(url, prefix="t-ends", cluster="c", holder="b", timeout_s=20)
    await second.renew()
    for lease in (first, second):
        await lease.close()
