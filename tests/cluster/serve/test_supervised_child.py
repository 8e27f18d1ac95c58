"""A child is started again with growing pauses, says why, and is gone after a stop."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardline_cluster.processes.back_off import BackOff
from shardline_cluster.serve.supervised_child import ChildFailedError, ChildPlan, SupervisedChild

pytestmark = pytest.mark.process


def _plan(tmp_path: Path, script: str, *, first_s: float = 0.01) -> ChildPlan:
    return ChildPlan(
        name="worker",
        command=(sys.executable, "-c", script),
        environment=dict(os.environ, WHO="me"),
        log=tmp_path / "worker.log",
        stop_grace_s=10.0,
        back_off=BackOff(first_s=first_s, longest_s=60.0),
    )


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("waited for 20 s in vain")


SLEEPS = "import os, time; print(os.environ['WHO'], 'runs', flush=True); time.sleep(60)"


async def test_a_child_that_is_killed_comes_back_and_one_line_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    child = SupervisedChild(_plan(tmp_path, SLEEPS), say=said.append)
    child.start()
    keeping = asyncio.create_task(child.keep())
    await child.printed("me runs", within_s=20)
    first = child.pid

    os.kill(first, signal.SIGKILL)
    await _until(lambda: child.pid != first)
    await child.stop()
    await keeping

    assert said == ["worker was killed by SIGKILL; starting it again in 0.01 s"]


async def test_pauses_grow_while_it_keeps_failing_and_each_exit_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    codes: list[int] = []
    plan = replace(_plan(tmp_path, "raise SystemExit(3)"), on_exit=codes.append)
    child = SupervisedChild(plan, say=said.append)
    child.start()
    keeping = asyncio.create_task(child.keep())

    await _until(lambda: len(codes) >= 3)
    await child.stop()
    await keeping

    assert codes[:3] == [3, 3, 3]
    assert [line.rsplit(" ", 2)[1] for line in said[:3]] == ["0.01", "0.02", "0.04"]


async def test_a_child_is_prepared_before_each_start(tmp_path: Path) -> None:
    prepared: list[int] = []
    plan = replace(_plan(tmp_path, "pass"), before_start=lambda: prepared.append(1))
    child = SupervisedChild(plan, say=lambda _line: None)
    child.start()
    keeping = asyncio.create_task(child.keep())

    await _until(lambda: len(prepared) >= 2)
    await child.stop()
    await keeping


async def test_a_child_that_is_replaced_is_another_process_afterwards(tmp_path: Path) -> None:
    child = SupervisedChild(_plan(tmp_path, SLEEPS), say=lambda _line: None)
    child.start()
    keeping = asyncio.create_task(child.keep())
    first = child.pid

    await child.replace()
    await _until(lambda: child.pid != first)

    await child.stop()
    await keeping


async def test_a_child_that_ends_before_it_is_ready_is_explained_by_its_last_words(tmp_path: Path) -> None:
    child = SupervisedChild(_plan(tmp_path, "import sys; sys.exit('no space left')"), say=lambda _line: None)
    child.start()

    with pytest.raises(ChildFailedError, match=r"(?s)worker exited with 1; its last words:\nno space left"):
        await child.printed("ready", within_s=20)


async def test_a_child_that_takes_too_long_is_told_with_the_limit(tmp_path: Path) -> None:
    child = SupervisedChild(_plan(tmp_path, SLEEPS), say=lambda _line: None)
    child.start()

    with pytest.raises(ChildFailedError, match="worker was not ready within 0 s"):
        await child.printed("ready", within_s=0.2)
    await child.stop()


async def test_a_stop_during_the_pause_is_obeyed(tmp_path: Path) -> None:
    said: list[str] = []
    child = SupervisedChild(_plan(tmp_path, "pass", first_s=0.3), say=said.append)
    child.start()
    keeping = asyncio.create_task(child.keep())
    await _until(lambda: bool(said))
    ended = child.pid

    await child.stop()
    await keeping

    assert child.pid == ended
