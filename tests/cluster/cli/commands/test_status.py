"""`shardline status`: where it looks, and what it prints."""

import asyncio
import json
import os
import time

import pytest

from shardline_cluster.cli.commands import status as status_module
from shardline_cluster.cli.commands.status import QueueAddress
from shardline_cluster.cli.main import main
from shardline_cluster.cli.run_file import RunFile, write_run_file
from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.cluster_status import ClusterStatus
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.fleet.replica_state import ReplicaState
from tests.cluster.cli.example_cluster import ExampleCluster, working_cluster
from tests.cluster.queue.redis_servers import running_server, server_binaries


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[QueueAddress]:
    """Where the command looked; it finds a cluster of twins there."""
    seen: list[QueueAddress] = []

    async def read(address: QueueAddress) -> ClusterStatus:
        seen.append(address)
        return await (await working_cluster()).observe()

    monkeypatch.setattr(status_module, "read_status", read)
    return seen


def write_default_run_file() -> None:
    write_run_file(
        RunFile(
            name="default",
            endpoints=("127.0.0.1:1",),
            redis_url="unix:///run/redis.sock",
            redis_prefix="mine",
            pid=os.getpid(),
            started=time.time(),
        )
    )


def test_the_cluster_is_printed_as_tables(addresses: list[QueueAddress], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--redis-url", "redis://x"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["smollm2", "smollm2:135m", "default", "1/2", "2", "1", "1", "min", "31", "s", "1"]
    assert [line.split()[0] for line in lines[4:6]] == ["smollm2-0", "smollm2-1"]


def test_json_is_one_object(addresses: list[QueueAddress], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--redis-url", "redis://x", "--json"]) == 0

    (deployment,) = json.loads(capsys.readouterr().out)["deployments"]
    assert deployment["lane"]["waiting_requests"] == 2
    assert deployment["replicas"][0]["state"] == "READY"


def test_the_flag_goes_before_the_variables_and_they_before_the_run_file(
    addresses: list[QueueAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_default_run_file()
    main(["status"])
    monkeypatch.setenv("REDIS_URL", "redis://of-redis")
    main(["status"])
    monkeypatch.setenv("SHARDLINE_REDIS_URL", "redis://of-shardline")
    main(["status"])
    main(["status", "--redis-url", "redis://of-flag", "--redis-prefix", "p"])

    assert addresses == [
        QueueAddress("unix:///run/redis.sock", "mine"),
        QueueAddress("redis://of-redis", "shardline"),
        QueueAddress("redis://of-shardline", "shardline"),
        QueueAddress("redis://of-flag", "p"),
    ]


def test_a_queue_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(_: QueueAddress) -> ClusterStatus:
        raise QueueUnavailableError("Redis at redis://x:6379 does not answer: is it running?")

    monkeypatch.setattr(status_module, "read_status", fail)

    assert main(["status", "--redis-url", "redis://x"]) == 1

    assert capsys.readouterr().err == "shardline: Redis at redis://x:6379 does not answer: is it running?\n"


@pytest.mark.redis
@pytest.mark.parametrize("kind", server_binaries())
def test_a_real_server_is_read(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with running_server(server_binaries()[kind]) as server:
        asyncio.run(_deploy(server.url))

        assert main(["status", "--redis-url", server.url]) == 0
        assert main(["status", "--redis-url", server.url, "--redis-prefix", "other"]) == 0
        url = server.url
    assert main(["status", "--redis-url", url]) == 1

    output = capsys.readouterr()
    header, row, *_, nothing = output.out.splitlines()
    assert header.split()[:3] == ["MODEL", "SOURCE", "CLUSTER"]
    assert row.split()[:4] == ["smollm2", "smollm2:135m", "default", "0/2"]
    assert "smollm2-1  smollm2  FAILED" in output.out
    assert nothing == "No model is deployed."
    assert output.err.startswith("shardline: ")
    assert output.err.count("\n") == 1


async def _deploy(url: str) -> None:
    records, reports = deployments_on_redis(url, prefix="shardline"), RedisFleetReportStore(url, prefix="shardline")
    example = ExampleCluster()
    await example.deploy()
    deployed = (await example.store.all())["smollm2"].value
    await records.change("smollm2", lambda _: deployed)
    place = PlaceReport(place="smollm2-1", state=ReplicaState.FAILED, failures=1, reason="out of memory")
    report = DeploymentReport(name="smollm2", lane="smollm2", places=(place,))
    await reports.put(FleetReport(controller="c", written_at=0.0, deployments=(report,)))
    await records.close()
    await reports.close()
