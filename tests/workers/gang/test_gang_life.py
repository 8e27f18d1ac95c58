"""Ranks and leaders that are really killed or stopped: everything of their gang is gone within seconds."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from shardline_workers.collectives.errors import RankLostError
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang import gang
from shardline_workers.gang.gang_error import GangError
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.ranks.model_runner import ModelRunner
from tests.workers.engine_runs import request
from tests.workers.gang.tiny_gangs import ENDLESS, TOLD_S, is_running, run_for_ever, tiny_config, wait_for_end
from tests.workers.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.process

STARTED_S = 0.3  # of steps, before something happens to them


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def pool(native_library: NativeLibrary) -> Iterator[RankPool]:
    """Three rank processes of one test, as patient as in production."""
    pool = RankPool(report=lambda _: None)
    pool.start_children(3, environment=os.environ)
    yield pool
    pool.close()


def signal_soon(pid: int, number: signal.Signals) -> list[float]:
    """Sends it while steps run; the list gets the instant."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(pid, number)

    threading.Timer(STARTED_S, send).start()
    return sent


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "no sign of life for 5 s, since it is stopped")],
    ids=["killed", "stopped"],
)
def test_a_rank_that_is_killed_or_stopped_in_a_step_ends_its_gang_and_is_named(
    pool: RankPool,
    files: ModelFiles,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    how: str,
) -> None:
    name = f"test-{uuid.uuid4().hex}"
    monkeypatch.setattr("shardline_workers.gang.gang.secrets.token_hex", lambda _: name)
    plan = ParallelPlan(tp=2, pp=2)
    engine = load_engine(tiny_config(files, plan=plan), report=lambda _: None, pool=pool)
    members = pool.members(plan.num_ranks)
    pids = [member.pid for member in members.values()]

    sent = signal_soon(members[2].pid, number)
    with pytest.raises(RankLostError) as failure:
        run_for_ever(engine, ENDLESS)
    told_s = time.monotonic() - sent[0]
    ended_s = wait_for_end(pids, limit_s=TOLD_S)
    engine.close()

    assert told_s + ended_s < TOLD_S
    assert str(failure.value).startswith(f"rank 2 (process {members[2].pid} on ")
    assert str(failure.value).endswith(how)
    assert not [path for path in Path("/dev/shm").iterdir() if name in path.name]


def test_a_rank_that_is_killed_while_nothing_is_computed_fails_the_next_step(pool: RankPool, files: ModelFiles) -> None:
    plan = ParallelPlan(tp=2)
    engine = load_engine(tiny_config(files, plan=plan), report=lambda _: None, pool=pool)
    member = pool.members(plan.num_ranks)[1]

    os.kill(member.pid, signal.SIGKILL)
    wait_for_end([member.pid], limit_s=TOLD_S)

    with pytest.raises(RankLostError, match=rf"^rank 1 \(process {member.pid} on .* was killed by SIGKILL$"):
        engine.probe()
    engine.close()


@pytest.mark.parametrize("plan", [ParallelPlan(tp=2), ParallelPlan(tp=2, pp=2)], ids=str)
def test_an_error_of_the_leader_in_a_step_ends_its_ranks_though_nobody_closes_the_engine(
    pool: RankPool, files: ModelFiles, monkeypatch: pytest.MonkeyPatch, plan: ParallelPlan
) -> None:
    engine = load_engine(tiny_config(files, plan=plan), report=lambda _: None, pool=pool)
    pids = [member.pid for member in pool.members(plan.num_ranks).values()]
    for number in range(3):
        engine.add(request(ENDLESS, request_id=str(number)))
    engine.step()

    def broken(*_: object, **__: object) -> NoReturn:
        raise MemoryError("no room for a batch")

    monkeypatch.setattr(ModelRunner, "execute", broken)
    with pytest.raises(MemoryError, match="no room for a batch"):
        engine.step()

    assert wait_for_end(pids, limit_s=TOLD_S) < TOLD_S
    with pytest.raises(RankLostError, match=r"^rank \d .*(exit code 1|MemoryError: no room for a batch)$"):
        load_engine(tiny_config(files, plan=plan), report=lambda _: None, pool=pool)
    engine.close()


def test_ranks_that_serve_a_model_are_not_given_another_one(pool: RankPool, files: ModelFiles) -> None:
    config = tiny_config(files, plan=ParallelPlan(tp=2))
    engine = load_engine(config, report=lambda _: None, pool=pool)

    with pytest.raises(GangError, match=r"^rank processes serve another model still, .*: rank 1 \(process"):
        load_engine(config, report=lambda _: None, pool=pool)

    engine.probe()
    engine.close()
    load_engine(config, report=lambda _: None, pool=pool).close()


def test_ranks_that_were_not_made_a_group_are_ended_and_not_left_to_wait(
    pool: RankPool, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise MemoryError("no room for a ring")

    monkeypatch.setattr(gang, "open_leader_end", broken)
    pids = [member.pid for member in pool.members(2).values()]

    with pytest.raises(MemoryError, match="no room for a ring"):
        load_engine(tiny_config(files, plan=ParallelPlan(tp=2)), report=lambda _: None, pool=pool)

    assert wait_for_end(pids, limit_s=TOLD_S) < TOLD_S


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_leader_that_is_killed_or_stopped_takes_its_ranks_along(
    files: ModelFiles, native_library: NativeLibrary, number: signal.Signals
) -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "tests.workers.gang.leader_process", str(files.path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        pids = [int(word) for word in leader.stdout.readline().split()]
        try:
            assert pids and all(is_running(pid) for pid in pids)

            leader.send_signal(number)

            assert wait_for_end(pids, limit_s=TOLD_S) < TOLD_S
        finally:
            leader.kill()
