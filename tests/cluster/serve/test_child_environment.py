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


def test_keys_that_clients_show_stay_with_their_parent() -> None:
    assert "SHARDLINE_API_KEY" not in child_environment({}, {"SHARDLINE_API_KEY": "open-sesame-open-sesame"})


def test_additions_go_before_what_is_inherited() -> None:
    environment = child_environment({"A": "new"}, {"A": "old", "B": "kept"})

    assert (environment["A"], environment["B"]) == ("new", "kept")
