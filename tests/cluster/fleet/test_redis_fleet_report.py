"""The reports in Redis are the last ones of each cluster under a prefix, and errors are those of the queue."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer

pytestmark = pytest.mark.redis

PLACE = PlaceReport(place="tiny-1-0", state=ReplicaState.FAILED, failures=2, reason="no memory", next_start_s=1.5)
REPORT = FleetReport(
    controller="c",
    written_at=5.0,
    deployments=(DeploymentReport(name="tiny", lane="tiny-1", places=(PLACE,)),),
)


@pytest.fixture
def url() -> Iterator[str]:
    server = EmbeddedServer.start(None, Durability.NONE)
    yield server.url
    server.stop()


async def test_the_last_report_is_found_by_others_under_the_same_prefix(url: str) -> None:
    writer = RedisFleetReportStore(url, prefix="a")
    reader, stranger = RedisFleetReportStore(url, prefix="a"), RedisFleetReportStore(url, prefix="b")
    assert await reader.all() == {}

    await writer.put(FleetReport(controller="earlier", written_at=1.0))
    await writer.put(REPORT)

    assert await reader.all() == {"default": REPORT}
    assert await stranger.all() == {}
    for store in (writer, reader, stranger):
        await store.close()


async def test_two_clusters_do_not_write_over_each_other(url: str) -> None:
    store = RedisFleetReportStore(url, prefix="a")
    other = replace(REPORT, cluster="other", deployments=())

    await store.put(REPORT)
    await store.put(other)

    assert await store.all() == {"default": REPORT, "other": other}
    await store.close()


async def test_a_server_that_is_away_is_told_as_such() -> None:
    store = RedisFleetReportStore("unix:///nowhere/redis.sock", prefix="a")

    with pytest.raises(QueueUnavailableError):
        await store.put(REPORT)
    await store.close()
