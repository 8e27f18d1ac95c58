"""`shardline status`: where it looks, and what it prints."""

import json
import os
import sys
import time

import pytest

from shardline_cluster.cli import status as status_module
from shardline_cluster.cli.cluster_status import ClusterStatus
from shardline_cluster.cli.main import main
from shardline_cluster.cli.run_file import RunFile, write_run_file
from shardline_cluster.cli.status import QueueAddress
from shardline_cluster.errors import QueueUnavailableError
from tests.cluster.cli.example_cluster import working_cluster


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
    assert lines[1].split() == ["smollm2", "smollm2:135m", "1/2", "2", "1", "1", "min", "31", "s", "1"]
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


def test_an_installation_of_the_client_alone_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in ("fleet.redis_deployment_store", "queue.redis_request_queue", "queue.redis_connection"):
        monkeypatch.delitem(sys.modules, f"shardline_cluster.{name}", raising=False)

    assert main(["status", "--redis-url", "redis://x"]) == 1

    assert "pip install 'shardline[cluster]'" in capsys.readouterr().err
