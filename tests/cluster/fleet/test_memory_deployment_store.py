"""Desired deployments in memory: what a store promises, and that it can be out of reach."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.memory_deployment_store import MemoryDeploymentStore

PLAIN = Deployment(name="m", model="simulated", lane="lane", weights_digest="d", max_model_len=128)


async def test_a_deployment_is_kept_under_its_name_until_it_is_deleted() -> None:
    store = MemoryDeploymentStore()
    await store.put(PLAIN)
    await store.put(replace(PLAIN, num_replicas=2))
    before = await store.all()

    await store.delete("m")
    await store.delete("m")

    assert before == {"m": replace(PLAIN, num_replicas=2)}
    assert await store.all() == {}


async def test_a_store_that_is_down_says_so_and_keeps_what_it_has() -> None:
    store = MemoryDeploymentStore()
    await store.put(PLAIN)
    store.is_down = True

    with pytest.raises(QueueUnavailableError):
        await store.all()
    with pytest.raises(QueueUnavailableError):
        await store.delete("m")

    store.is_down = False
    assert await store.all() == {"m": PLAIN}
