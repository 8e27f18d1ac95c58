"""What was typed is there the next time, for its user alone."""

import importlib
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from shardline_cluster.cli.conversations.input_history import history_file, line_editing

readline: Any = importlib.import_module("readline")


def typed(path: Path | None, *lines: str) -> list[str]:
    """Types lines in one session; returns what the arrow keys bring at its end."""
    with line_editing(path, words=()):
        for line in lines:
            readline.add_history(line)
        return [readline.get_history_item(number + 1) for number in range(readline.get_current_history_length())]


def test_sessions_add_to_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "a" / "history"

    typed(path, "one", "two")

    assert typed(path, "three") == ["one", "two", "three"]
    assert path.read_text().split() == ["one", "two", "three"]
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


def test_a_history_that_others_could_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch(mode=0o644)

    typed(path, "secret")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "history"
    target.write_text("kept")
    path.symlink_to(target)

    typed(path, "secret")

    assert target.read_text() == "kept"


def test_without_a_file_nothing_is_read_and_nothing_kept(tmp_path: Path) -> None:
    path = tmp_path / "history"
    typed(path, "one")

    assert typed(None, "two") == ["two"]
    assert path.read_text() == "one\n"


def test_commands_are_completed() -> None:
    with line_editing(None, words=("/save", "/set", "/bye")):
        complete = readline.get_completer()

        assert [complete("/s", number) for number in range(3)] == ["/save", "/set", None]
        assert complete("", 0) is None


def test_a_python_without_readline_still_chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "readline", None)

    with line_editing(tmp_path / "history", words=()):
        pass

    assert list(tmp_path.iterdir()) == []


def test_the_file_lies_where_the_system_keeps_state(tmp_path: Path) -> None:
    assert history_file({"XDG_STATE_HOME": "/s"}) == Path("/s/shardline/chat_history")
    assert history_file({}) == Path.home() / ".local/state/shardline/chat_history"
