"""Nobody begins to keep a cluster that a living controller keeps; a dead one's lease is waited for."""

import asyncio
from collections.abc import Iterator

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.redis_controller_lease import RedisControllerLease
from shardline_cluster.serve import cluster_claim
from shardline_cluster.serve.cluster_claim import wait_until_free
from tests.cluster.queue.redis_servers import running_server, server_binaries

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(next(iter(server_binaries().values()))) as server:
        yield server.url


async def test_a_cluster_that_nobody_keeps_is_free_at_once(url: str) -> None:
    said: list[str] = []

    await wait_until_free(url, prefix="a", cluster="c", say=said.append)

    assert said == []


async def test_one_that_is_kept_is_waited_for_and_then_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_claim, "PATIENCE_S", 0.3)
    lease = RedisControllerLease(url, prefix="b", cluster="c", holder="host-7", timeout_s=20)
    await lease.renew()
    said: list[str] = []

    with pytest.raises(ConfigurationError, match=r"'c' is kept by another controller \(host-7\).*another --name"):
        await wait_until_free(url, prefix="b", cluster="c", say=said.append)

    assert said == ["waiting: the cluster 'c' was kept by another controller a moment ago (host-7)"]
    await lease.close()


async def test_one_that_is_given_back_meanwhile_is_free(url: str) -> None:
    lease = RedisControllerLease(url, prefix="d", cluster="c", holder="host-7", timeout_s=20)
    await lease.renew()

    waiting = asyncio.create_task(wait_until_free(url, prefix="d", cluster="c", say=lambda _: None))
    await lease.release()

    await waiting
    await lease.close()
