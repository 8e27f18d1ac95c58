"""Rules for all tests: what is not marked must not start servers or processes."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

MARKS_THAT_START_PROCESSES = {"redis", "ray", "process"}


@pytest.fixture(autouse=True)
def _no_processes_without_a_mark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    marks = {mark.name for mark in request.node.iter_markers()}
    if not marks & MARKS_THAT_START_PROCESSES:

        def refuse(*arguments: Any, **_: Any) -> None:
            raise AssertionError(f"this test starts {arguments[1:2]}, but has none of {MARKS_THAT_START_PROCESSES}")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
        monkeypatch.setattr(subprocess.Popen, "__del__", lambda _self: None)
    yield
