"""Whether what a machine lacks is told with what helps."""

import os
import shutil
import socket
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from shardline_cluster.cli.checks import machine_checks
from shardline_cluster.cli.checks.finding import Level
from shardline_cluster.cli.checks.machine_checks import (
    check_cache,
    check_gpus,
    check_hub,
    check_kernels,
    check_open_files,
    check_port,
    check_resources,
    check_shared_memory,
)
from shardline_cluster.cli.run_file import RunFile, write_run_file
from tests.workers.files.hub_server import HubServer, running

Usage = namedtuple("Usage", "total used free")


def test_the_limits_of_a_container_are_told(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("100000 100000\n")
    (group / "memory.max").write_text(f"{1 << 30}\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")

    finding = check_resources(tmp_path)

    assert finding.level is Level.DOUBTFUL
    assert finding.found.startswith("1 core and 1.1 GB of memory")


@pytest.mark.parametrize(("total", "level"), [(64 << 20, Level.DOUBTFUL), (1 << 30, Level.GOOD)])
def test_a_containers_small_shared_memory_is_told(
    total: int, level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, 0, total))

    finding = check_shared_memory(tmp_path)

    assert finding.level is level
    assert ("--shm-size" in finding.remedy) is (level is Level.DOUBTFUL)


def test_a_machine_without_shared_memory_is_told(tmp_path: Path) -> None:
    assert check_shared_memory(tmp_path / "none").level is Level.DOUBTFUL


def test_a_taken_port_is_told_unless_our_own_server_has_it(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        strangers = check_port("127.0.0.1", port, environment)
        write_run_file(
            RunFile(
                name="mine",
                endpoints=(f"127.0.0.1:{port}",),
                redis_url="",
                redis_prefix="p",
                pid=os.getpid(),
                started=time.time(),
            ),
            environment,
        )
        ours = check_port("127.0.0.1", port, environment)
    free = check_port("127.0.0.1", port, environment)

    assert (strangers.level, ours.level, free.level) == (Level.BROKEN, Level.GOOD, Level.GOOD)
    assert "is taken by another program" in strangers.found
    assert "'mine'" in ours.found


def test_without_a_compiler_the_cost_is_told_and_the_cure(tmp_path: Path) -> None:
    finding = check_kernels({"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)})

    assert finding.level is Level.DOUBTFUL
    assert "no C++ compiler was found" in finding.found
    assert "install a C++17 compiler" in finding.remedy


def test_with_a_compiler_the_first_start_builds(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)

    finding = check_kernels({"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path)})

    assert finding.level is Level.GOOD
    assert finding.found.endswith("will build them at the first start")


class _Library:
    def __init__(self, _: Path) -> None:
        pass

    def available_isas(self) -> dict[str, int]:
        return {"portable": 0, "avx2": 1}

    def best_isa(self) -> str:
        return "avx2"


@pytest.mark.parametrize(
    ("wanted", "level", "taken"),
    [("", Level.GOOD, "avx2"), ("portable", Level.GOOD, "portable"), ("amx", Level.BROKEN, "amx")],
)
def test_built_kernels_tell_which_instructions_they_take(
    wanted: str, level: Level, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "ready_library", lambda _: tmp_path)
    monkeypatch.setattr(machine_checks, "NativeLibrary", _Library)

    finding = check_kernels({"SHARDLINE_INSTRUCTION_SET": wanted, "PATH": str(tmp_path)})

    assert finding.level is level
    assert f"can portable, avx2; {taken} is taken" in finding.found


def test_without_torch_nobody_knows_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    assert check_gpus().level is Level.DOUBTFUL


@pytest.mark.parametrize(
    ("limit", "level"), [(100, Level.BROKEN), (512, Level.DOUBTFUL), (4096, Level.GOOD), (-1, Level.GOOD)]
)
def test_few_open_files_are_told(limit: int, level: Level) -> None:
    assert check_open_files(limit).level is level


def test_the_cache_need_not_be_there_yet_but_must_be_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 0, 1 << 40))
    assert check_cache(tmp_path / "a" / "b").level is Level.GOOD

    monkeypatch.setattr(os, "access", lambda *_: False)
    assert check_cache(tmp_path / "a").level is Level.BROKEN


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 0, 1 << 30))

    assert check_cache(tmp_path).level is Level.DOUBTFUL


def test_a_hub_that_answers_anything_is_there_and_one_that_does_not_is_told() -> None:
    with running(HubServer({})) as hub:
        answers = check_hub({"HF_ENDPOINT": hub.endpoint})
    silent = check_hub({"HF_ENDPOINT": hub.endpoint})
    wrong = check_hub({"HF_ENDPOINT": "hub.example"})

    assert (answers.level, silent.level, wrong.level) == (Level.GOOD, Level.DOUBTFUL, Level.BROKEN)
    assert f"{hub.endpoint} does not answer" in silent.found
