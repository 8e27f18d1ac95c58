"""Rules for all tests: what is not marked starts no processes, and which Redis servers were tested is told."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from shardline_workers.kernels.native_library import NativeLibrary, load_native_library
from tests.cluster.queue.redis_servers import server_binaries

MARKS_THAT_START_PROCESSES = {"redis", "ray", "process"}
SERVER_IN_TEST_ID = re.compile(r"\[(?:[^\]]*-)?(redis|valkey)(?:-[^\]]*)?\]$")


@pytest.fixture(autouse=True)
def _no_processes_without_a_mark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    marks = {mark.name for mark in request.node.iter_markers()}
    if not marks & MARKS_THAT_START_PROCESSES:

        def refuse(*arguments: Any, **_: Any) -> None:
            raise AssertionError(f"this test starts {arguments[1:2]}, but has none of {MARKS_THAT_START_PROCESSES}")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
        monkeypatch.setattr(subprocess.Popen, "__del__", lambda _self: None)
    yield


@pytest.fixture(scope="session")
def native_library() -> NativeLibrary:
    """The native kernels, built before any test that asks for them. Without a compiler these tests fail, not pass."""
    return load_native_library(os.environ, lambda _: None)


class ServersTested:
    """Counts the tests that passed on each kind of server, and fails the run where a required kind had none."""

    def __init__(self, required: set[str]) -> None:
        self._required = required
        self._passed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts one test."""
        found = SERVER_IN_TEST_ID.search(report.nodeid)
        if report.when == "call" and report.passed and found:
            self._passed[found.group(1)] += 1

    def _missing(self) -> set[str]:
        return {kind for kind in self._required if not self._passed[kind]}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turns a required server without a test into a failure."""
        if self._missing() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says which servers were tested."""
        for kind, binary in server_binaries().items():
            terminalreporter.write_line(f"{kind}: {self._passed[kind]} tests passed on {_version(binary)}")
        if self._missing():
            terminalreporter.write_line(f"NOT TESTED, but required: {', '.join(sorted(self._missing()))}", red=True)


def _version(binary: os.PathLike[str]) -> str:
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return " ".join(told.stdout.split()[:3])


def pytest_configure(config: pytest.Config) -> None:
    """Begins to count, in the process that prints the summary."""
    if not hasattr(config, "workerinput"):
        required = set(os.environ.get("SHARDLINE_REQUIRED_SERVERS", "").split())
        config.pluginmanager.register(ServersTested(required), "servers-tested")
