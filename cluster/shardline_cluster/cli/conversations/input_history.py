"""Arrow keys, completion and a history of what was typed, by readline where Python has it.

The history lies in `$XDG_STATE_HOME/shardline/chat_history`, by default below `~/.local/state`, for its user alone: it
may hold what nobody else is to read.
"""

import importlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_MOST_LINES = 1_000


def history_file(environment: Mapping[str, str]) -> Path:
    """Where the history lies."""
    state = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "shardline" / "chat_history"


@contextmanager
def line_editing(path: Path | None, *, words: Sequence[str]) -> Iterator[None]:
    """While it lasts, `input` has arrow keys, completes `words`, and knows what was typed before.

    What is typed meanwhile is appended to `path` at the end; None: nothing is read, and nothing kept. A folder that
    cannot be written costs the history and nothing else.
    """
    try:
        readline: Any = importlib.import_module("readline")
    except ModuleNotFoundError:  # some Pythons lack it
        yield
        return
    _complete(readline, words)
    readline.clear_history()
    if path is None:
        yield
        return
    with suppress(OSError):
        readline.read_history_file(str(path))
    known = readline.get_current_history_length()
    try:
        yield
    finally:
        with suppress(OSError):
            _make_private(path)
            readline.set_history_length(_MOST_LINES)
            readline.append_history_file(max(0, readline.get_current_history_length() - known), str(path))


def _complete(readline: Any, words: Sequence[str]) -> None:
    def matching(text: str, number: int) -> str | None:
        found = [word for word in words if word.startswith(text)]
        return found[number] if text and number < len(found) else None

    readline.set_completer_delims(" ")
    readline.set_completer(matching)
    readline.parse_and_bind("tab: complete")


def _make_private(path: Path) -> None:
    """Before the first line lies in it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
