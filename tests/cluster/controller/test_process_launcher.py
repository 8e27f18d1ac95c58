"""Replicas as processes: seen, stopped, killed, found again by the next controller, and gone with their owner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardline_cluster.controller.process_launcher import ProcessLauncher
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.terms import QueueTerms
from tests.cluster.controller.fleets import deployment

pytestmark = pytest.mark.process

DRAINS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(os.environ["SHARDLINE_REPLICA_SPEC"][:15], os.getpid(), flush=True)
time.sleep(60)
"""


def _spec(incarnation: str) -> ReplicaSpec:
    return ReplicaSpec(
        deployment=deployment(),
        replica="tiny-1a2b-0",
        incarnation=incarnation,
        redis_url="unix:///nowhere",
        prefix="test",
        terms=QueueTerms.short(),
    )


def _launcher(folder: Path, script: str, *, owner_pid: int | None = None) -> ProcessLauncher:
    return ProcessLauncher(folder, owner_pid=owner_pid or os.getpid(), command=[sys.executable, "-c", script])


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 s in vain"
        time.sleep(0.02)


def _only(launcher: ProcessLauncher) -> ReplicaObservation:
    (seen,) = launcher.observe()
    return seen


def _printed(folder: Path, incarnation: str) -> str:
    return (folder / incarnation / "output.log").read_text()


def _replica_pid(folder: Path, incarnation: str) -> int:
    _until(lambda: _printed(folder, incarnation).endswith("\n"))
    return int(_printed(folder, incarnation).split()[-1])


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "replicas"
    cleaner = _launcher(tmp_path / "replicas", "")
    for seen in cleaner.observe():
        cleaner.kill(seen.incarnation)


def test_a_replica_gets_its_spec_and_is_seen_alive(folder: Path) -> None:
    launcher = _launcher(folder, DRAINS)

    launcher.start(_spec("a1"))

    assert _only(launcher) == ReplicaObservation("tiny-1a2b-0", "a1", alive=True, gang=Gang())
    _replica_pid(folder, "a1")
    assert _printed(folder, "a1").startswith('{"deployment":{')


def test_a_replica_that_is_stopped_drains_and_is_told_from_one_that_crashed(folder: Path) -> None:
    launcher = _launcher(folder, DRAINS)
    launcher.start(_spec("a1"))
    _replica_pid(folder, "a1")

    launcher.stop("a1")
    _until(lambda: not _only(launcher).alive)

    assert _only(launcher) == ReplicaObservation(
        "tiny-1a2b-0", "a1", alive=False, had_drained=True, reason="exited with 0"
    )


def test_a_crash_is_explained_by_the_exit_code_and_the_last_words(folder: Path) -> None:
    launcher = _launcher(folder, "import sys; print('loading'); sys.exit('error: no such file: model.gguf')")

    launcher.start(_spec("a1"))
    _until(lambda: not _only(launcher).alive)

    seen = _only(launcher)
    assert (seen.had_drained, seen.reason) == (False, "exited with 1: error: no such file: model.gguf")


def test_a_killed_replica_leaves_no_process(folder: Path) -> None:
    launcher = _launcher(folder, DRAINS)
    launcher.start(_spec("a1"))
    pid = _replica_pid(folder, "a1")

    launcher.kill("a1")
    _until(lambda: not _only(launcher).alive)

    _until(lambda: _gone(pid))
    assert not _only(launcher).had_drained


def test_the_next_launcher_finds_running_and_ended_replicas(folder: Path) -> None:
    first = _launcher(folder, DRAINS)
    for incarnation in ("a1", "a2"):
        first.start(_spec(incarnation))
        _replica_pid(folder, incarnation)
    first.close()

    second = _launcher(folder, DRAINS)
    second.stop("a2")
    _until(lambda: not {seen.incarnation: seen.alive for seen in second.observe()}["a2"])

    assert [(seen.incarnation, seen.alive, seen.had_drained) for seen in second.observe()] == [
        ("a1", True, False),
        ("a2", False, True),
    ]


def test_a_forgotten_replica_is_no_longer_seen(folder: Path) -> None:
    launcher = _launcher(folder, "pass")
    launcher.start(_spec("a1"))
    _until(lambda: not _only(launcher).alive)

    launcher.forget("a1")

    assert launcher.observe() == ()
    assert list(folder.iterdir()) == []


def test_a_replica_dies_when_its_owner_is_killed(folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    launcher = _launcher(folder, DRAINS, owner_pid=owner.pid)
    launcher.start(_spec("a1"))
    pid = _replica_pid(folder, "a1")

    owner.kill()
    _until(lambda: _gone(pid))
    owner.wait()

    _until(lambda: not _only(launcher).alive)


def test_a_replica_dies_when_its_keeper_is_killed(folder: Path) -> None:
    launcher = _launcher(folder, DRAINS)
    launcher.start(_spec("a1"))
    pid = _replica_pid(folder, "a1")

    os.kill(int((folder / "a1" / "keeper_pid").read_text()), signal.SIGKILL)
    _until(lambda: _gone(pid))

    _until(lambda: not _only(launcher).alive)
    assert _only(launcher).reason == "was killed together with its keeper"


def test_stopping_what_is_gone_is_no_error(folder: Path) -> None:
    launcher = _launcher(folder, "pass")
    launcher.start(_spec("a1"))
    _until(lambda: not _only(launcher).alive)

    launcher.stop("a1")
    launcher.kill("a1")

    assert not _only(launcher).alive
