"""The controller as a process, over Redis and real replicas with simulated engines."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.controller_process import CONFIG_VARIABLE, LocalControllerConfig
from shardline_cluster.controller.process_launcher import ProcessLauncher
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.fleet_report import DeploymentReport
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.processes.process_identity import ProcessIdentity
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer
from shardline_cluster.queue.terms import QueueTerms

pytestmark = [pytest.mark.process, pytest.mark.redis]

LANE = "tiny-1a2b"
COMMAND = [sys.executable, "-m", "shardline_cluster.controller.controller_process"]


class _Running:
    """A controller process that can be killed and started again."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.redis_url = redis_url
        self.folder = folder
        config = LocalControllerConfig(
            controller=ControllerConfig(redis_url=redis_url, prefix="test", terms=QueueTerms.short()),
            folder=str(folder),
            owner_pid=os.getpid(),
            drain_at_exit_s=10.0,
        )
        self.environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        self.environment[CONFIG_VARIABLE] = to_json(config)
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        self.process = subprocess.Popen(COMMAND, env=self.environment, stderr=subprocess.DEVNULL)
        return self.process

    async def report(self, condition: Callable[[DeploymentReport], bool]) -> DeploymentReport:
        """The first report on the deployment for which the condition holds."""
        reports = RedisFleetReportStore(self.redis_url, prefix="test")
        try:
            async with asyncio.timeout(40):
                while True:
                    fleet = (await reports.all()).get("default")
                    report = fleet.of_lane(LANE) if fleet is not None else None
                    if report is not None and condition(report):
                        return report
                    await asyncio.sleep(0.05)
        finally:
            await reports.close()

    def incarnations(self) -> set[str]:
        return {seen.incarnation for seen in self.launcher().observe() if seen.alive}

    def launcher(self) -> ProcessLauncher:
        return ProcessLauncher(self.folder, owner_pid=os.getpid())


@pytest.fixture
def redis_url() -> Iterator[str]:
    server = EmbeddedServer.start(None, Durability.NONE)
    yield server.url
    server.stop()


@asynccontextmanager
async def _running(redis_url: str, folder: Path, num_replicas: int) -> AsyncIterator[_Running]:
    wanted = Deployment(
        name="tiny",
        model="simulated",
        lane=LANE,
        weights_digest="1a2b",
        max_model_len=512,
        num_replicas=num_replicas,
        options=EngineOptions(engine="simulated"),
    )
    records = deployments_on_redis(redis_url, prefix="test")
    await records.change("tiny", lambda _: wanted)
    await records.close()
    running = _Running(redis_url, folder)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        for incarnation in running.incarnations():
            running.launcher().kill(incarnation)


async def test_a_killed_controller_is_followed_by_one_that_finds_the_same_replicas(
    redis_url: str, tmp_path: Path
) -> None:
    async with _running(redis_url, tmp_path, 2) as running:
        await running.report(lambda report: report.num_ready == 2)
        before = running.incarnations()

        running.process.kill()
        running.process.wait()
        running.start()
        first = await running.report(lambda report: report.num_ready == 2)
        os.killpg(int((tmp_path / first.places[0].incarnation / "keeper_pid").read_text()), signal.SIGKILL)
        replaced = await running.report(
            lambda report: report.num_ready == 2 and {place.incarnation for place in report.places} != before
        )

    assert {place.incarnation for place in first.places} == before
    assert replaced.places[1] == first.places[1]
    assert replaced.places[0].failures == 1


async def test_a_controller_that_is_told_to_end_lets_its_replicas_drain(redis_url: str, tmp_path: Path) -> None:
    async with _running(redis_url, tmp_path, 1) as running:
        report = await running.report(lambda report: report.num_ready == 1)
        keeper = ProcessIdentity.of(int((tmp_path / report.places[0].incarnation / "keeper_pid").read_text()))

        running.process.terminate()
        code = running.process.wait(30)
        seen = running.launcher().observe()

    assert code == 0
    assert seen == ()
    assert keeper.gone()


async def test_two_controllers_do_not_share_a_folder(redis_url: str, tmp_path: Path) -> None:
    async with _running(redis_url, tmp_path, 0) as running:
        await running.report(lambda report: report.places == ())

        second = await asyncio.to_thread(_ended, running.environment)

    assert second.returncode == 1
    assert "another controller keeps the replicas" in second.stderr


def _ended(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_a_controller_without_its_configuration_says_which_variable_is_missing() -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))

    ended = _ended(environment)

    assert ended.returncode == 1
    assert f"{CONFIG_VARIABLE} is not set" in ended.stderr
