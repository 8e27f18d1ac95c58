"""Children find the packages that their parent found, wherever they work."""

import os
import sys
from pathlib import Path

import pytest

from shardline_cluster.serve.child_environment import child_environment


def test_relative_entries_of_the_module_path_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cluster").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "cluster", "absent"])

    environment = child_environment({}, {})

    assert environment["PYTHONPATH"] == str((tmp_path / "cluster").resolve())


def test_where_everything_is_installed_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(os.__file__).parent)])

    assert "PYTHONPATH" not in child_environment({}, {})


def test_additions_go_before_what_is_inherited() -> None:
    environment = child_environment({"A": "new"}, {"A": "old", "B": "kept"})

    assert (environment["A"], environment["B"]) == ("new", "kept")


def test_secrets_that_serve_has_read_are_not_handed_on() -> None:
    secrets = {"SHARDLINE_API_KEY": "k", "SHARDLINE_REDIS_URL": "redis://u:p@h", "REDIS_URL": "redis://u:p@h"}

    made = child_environment({"A": "1"}, {**secrets, "B": "2"})

    assert not secrets.keys() & made.keys()
    assert (made["A"], made["B"]) == ("1", "2")
