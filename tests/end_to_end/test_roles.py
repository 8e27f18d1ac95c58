"""A cluster without `serve`: routers, a controller and a replica as commands of their own, over one Redis."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shardline import AsyncClient
from shardline.results import RequestState
from shardline_cluster.queue.durability import Durability
from tests.cluster.queue.redis_servers import running_server, server_binaries

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(120)]

ENDS_WITHIN_S = 30.0
DEPLOY = ("deploy", "--engine", "simulated", "--as", "tiny", "--simulated-step-s", "0.01")


class _Roles:
    """Commands over one Redis; what they print is kept."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._folder = folder
        self._environment = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(sys.path),
            SHARDLINE_REDIS_URL=redis_url,
            SHARDLINE_QUEUE_TERMS="short",
            SHARDLINE_METRICS_PORT="0",
            TMPDIR=str(folder),
        )
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> Path:
        """Starts a command; returns the file of what it prints."""
        log = self._folder / f"{len(self.running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(self._command(arguments), env=self._environment, stdout=output, stderr=output)
        self.running.append(process)
        return log

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end."""
        return subprocess.run(
            self._command(arguments), env=self._environment, capture_output=True, text=True, timeout=40, check=False
        )

    def routers(self, number: int) -> list[str]:
        """Starts routers; returns their addresses once they listen."""
        logs = [self.start("router", "--grpc-port", "0") for _ in range(number)]
        told = [self.until(log, lambda line: line.startswith('{"host"')) for log in logs]
        return [f"127.0.0.1:{json.loads(line)['port']}" for line in told]

    def until(self, log: Path, found: Callable[[str], bool]) -> str:
        """The first printed line of this kind."""
        deadline = time.monotonic() + 40
        while True:
            for line in log.read_text(errors="replace").splitlines():
                if found(line):
                    return line
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.02)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "shardline_cluster.cli.main", *arguments]


@pytest.fixture
def roles() -> Iterator[_Roles]:
    with (
        TemporaryDirectory(prefix="sl-", dir="/tmp") as folder,  # short, so that the controller's own lies in it
        running_server(next(iter(server_binaries().values())), Durability.RELAXED) as server,
    ):
        roles = _Roles(server.url, Path(folder))
        try:
            yield roles
        finally:
            for process in roles.running:
                process.kill()
                process.wait()


async def test_commands_on_one_redis_are_a_cluster_and_each_ends_when_it_is_told(roles: _Roles) -> None:
    roles.start("controller", "--launcher", "local")
    endpoints = roles.routers(2)
    deployed = roles.run(*DEPLOY, "--endpoint", endpoints[0])
    roles.start("replica", "tiny")
    alone = roles.run("controller", "--launcher", "local")

    answers = []
    for endpoint in endpoints:
        async with AsyncClient(endpoint) as client:
            await _two_ready(client)
            answers.append(await client.generate("hello", model="tiny", max_tokens=5))
    listed = roles.run("status").stdout
    ends = await asyncio.gather(*(asyncio.to_thread(_end, process) for process in roles.running))

    assert deployed.returncode == 0, deployed.stderr
    assert "ready: shardline generate --model tiny" in deployed.stderr
    assert [answer.state for answer in answers] == [RequestState.DONE, RequestState.DONE]
    assert alone.returncode == 1
    assert "another controller keeps the replicas" in alone.stderr
    assert len([line for line in listed.splitlines() if line.startswith("tiny-")]) == 2
    assert ends == [0, 0, 0, 0]


async def _two_ready(client: AsyncClient) -> None:
    deadline = time.monotonic() + 40
    while [model.ready_replicas for model in await client.models()] != [2]:
        assert time.monotonic() < deadline, "two replicas were not ready in time"
        await asyncio.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(ENDS_WITHIN_S)
