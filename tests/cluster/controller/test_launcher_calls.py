"""Calls that block are given up, never piled up, and their errors are told."""

import asyncio
import threading

import pytest

from shardline_cluster.controller.launcher_calls import LauncherBusyError, LauncherCalls


async def test_a_call_in_time_gives_its_result_and_runs_beside_the_loop() -> None:
    calls = LauncherCalls(10.0)

    thread = await calls.call("who", threading.get_ident)

    assert thread != threading.get_ident()


async def test_an_error_of_the_call_is_the_callers() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await LauncherCalls(10.0).call("fail", fail)


async def test_a_call_that_hangs_is_given_up_and_not_repeated_until_it_has_come_back() -> None:
    calls, release, runs = LauncherCalls(0.02), threading.Event(), list[int]()

    def hang() -> None:
        runs.append(1)
        release.wait(10)

    with pytest.raises(LauncherBusyError, match=r"did not answer hang within 0\.02 s"):
        await calls.call("hang", hang)
    with pytest.raises(LauncherBusyError, match="still works on an earlier hang"):
        await calls.call("hang", hang)
    assert len(runs) == 1
    assert await calls.call("other", lambda: "free") == "free"

    release.set()
    for _ in range(1_000):
        try:
            await calls.call("hang", lambda: runs.append(2))
            break
        except LauncherBusyError:
            await asyncio.sleep(0.01)
    assert runs == [1, 2]


async def test_a_late_error_disturbs_nobody() -> None:
    calls, release = LauncherCalls(0.02), threading.Event()

    def fail_late() -> None:
        release.wait(10)
        raise ValueError("late")

    with pytest.raises(LauncherBusyError):
        await calls.call("late", fail_late)
    release.set()
    await asyncio.sleep(0.1)

    assert await calls.call("late", lambda: "again") == "again"
