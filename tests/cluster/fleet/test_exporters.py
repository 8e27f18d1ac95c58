"""Exporters are announced, found by the controller, and gone when nobody repeats them."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.exporters import (
    ANNOUNCED_S,
    Exporter,
    ExporterKind,
    ExporterList,
    announced,
    scrape_targets,
)
from shardline_cluster.fleet.memory_exporters import MemoryExporterList
from shardline_cluster.fleet.redis_exporters import RedisExporterList
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer

ROUTER = Exporter(kind=ExporterKind.ROUTER, address="127.0.0.1:1001")
REPLICA = Exporter(kind=ExporterKind.REPLICA, address="127.0.0.1:1002")
OTHER_REPLICA = Exporter(kind=ExporterKind.REPLICA, address="127.0.0.1:1001")


class _Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def exporters(request: pytest.FixtureRequest, clock: _Clock) -> AsyncIterator[ExporterList]:
    if request.param == "memory":
        yield MemoryExporterList(clock=clock)
        return
    server = EmbeddedServer.start(None, Durability.NONE)
    found = RedisExporterList(server.url, prefix="test", clock=clock)
    yield found
    await found.close()
    server.stop()


async def test_what_was_announced_is_found_in_order(exporters: ExporterList) -> None:
    for exporter in (ROUTER, REPLICA, OTHER_REPLICA, ROUTER):
        await exporters.announce(exporter)

    assert await exporters.all() == (OTHER_REPLICA, REPLICA, ROUTER)


async def test_an_announcement_runs_out_unless_it_is_repeated(exporters: ExporterList, clock: _Clock) -> None:
    await exporters.announce(ROUTER)
    await exporters.announce(REPLICA)

    clock.now_s += ANNOUNCED_S / 2
    await exporters.announce(REPLICA)
    clock.now_s += ANNOUNCED_S / 2

    assert await exporters.all() == (REPLICA,)


async def test_a_process_that_ends_withdraws_its_own(exporters: ExporterList) -> None:
    await exporters.announce(ROUTER)
    await exporters.announce(REPLICA)

    await exporters.withdraw(ROUTER)
    await exporters.withdraw(OTHER_REPLICA)

    assert await exporters.all() == (REPLICA,)


async def test_a_process_is_announced_for_as_long_as_it_lives() -> None:
    exporters = MemoryExporterList()

    async with announced(ROUTER, exporters):
        await asyncio.sleep(0)
        meanwhile = await exporters.all()

    assert meanwhile == (ROUTER,)
    assert await exporters.all() == ()


async def test_a_redis_that_is_away_keeps_nobody_from_living() -> None:
    exporters = RedisExporterList("unix:///nowhere/redis.sock", prefix="test")

    async with announced(ROUTER, exporters):
        await asyncio.sleep(0.01)

    with pytest.raises(QueueUnavailableError):
        await exporters.all()
    await exporters.close()


def test_targets_are_groups_as_prometheus_discovers_them() -> None:
    told = json.loads(scrape_targets((OTHER_REPLICA, REPLICA, ROUTER)))

    assert told == [
        {"targets": ["127.0.0.1:1001", "127.0.0.1:1002"], "labels": {"process": "replica"}},
        {"targets": ["127.0.0.1:1001"], "labels": {"process": "router"}},
    ]
