"""Deployments in Redis are found again by name, and by whoever connects later."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.redis_deployment_store import RedisDeploymentStore
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.cluster.queue.redis_servers import running_server, server_binaries

pytestmark = pytest.mark.redis

SMALL = Deployment(
    name="smöll",
    model="simulated",
    lane="simulated-1",
    weights_digest="0",
    max_model_len=128,
    options=EngineOptions(engine="simulated", simulated_step_s=0.5),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(next(iter(server_binaries().values()))) as server:
        yield server.url


@pytest.fixture
async def store(url: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisDeploymentStore]:
    store = RedisDeploymentStore(url, prefix=f"t-{request.node.name}", call_timeout_s=20)
    yield store
    await store.close()


async def test_nothing_is_deployed_at_first(store: RedisDeploymentStore) -> None:
    assert await store.all() == {}


async def test_what_was_put_is_found_by_another_store(
    store: RedisDeploymentStore, url: str, request: pytest.FixtureRequest
) -> None:
    await store.put(SMALL)
    other = RedisDeploymentStore(url, prefix=f"t-{request.node.name}", call_timeout_s=20)

    found = await other.all()
    await other.close()

    assert found == {SMALL.name: SMALL}


async def test_a_second_put_replaces_and_a_delete_removes(store: RedisDeploymentStore) -> None:
    larger = replace(SMALL, num_replicas=3)
    other = replace(SMALL, name="other")
    await store.put(SMALL)
    await store.put(larger)
    await store.put(other)

    before = await store.all()
    await store.delete(SMALL.name)
    await store.delete(SMALL.name)

    assert before == {larger.name: larger, "other": other}
    assert await store.all() == {"other": other}


async def test_a_deployment_of_another_version_is_an_error_and_no_guess(
    store: RedisDeploymentStore, url: str, request: pytest.FixtureRequest
) -> None:
    raw = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    await raw.execute("HSET", f"t-{request.node.name}:v1:deployments", "new", '{"name":"new","colour":"red"}')
    await raw.close()

    with pytest.raises(ConfigurationError, match="colour"):
        await store.all()


async def test_a_server_that_is_away_is_told_as_unavailable() -> None:
    store = RedisDeploymentStore("unix:///nowhere/redis.sock", prefix="t")

    with pytest.raises(QueueUnavailableError, match="nowhere"):
        await store.all()
