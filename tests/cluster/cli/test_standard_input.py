"""What may stand behind standard input."""

import io

import pytest

from shardline_cluster.cli import standard_input
from shardline_cluster.errors import InvalidRequestError


def bytes_on_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_a_pipe_is_read_whole_or_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_on_input(monkeypatch, "später\n".encode())
    assert standard_input.is_piped()
    assert standard_input.read_all() == "später\n"

    bytes_on_input(monkeypatch, b" first \nlast")
    assert [standard_input.read_line("") for _ in range(3)] == [" first ", "last", None]


def test_bytes_that_are_no_text_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_on_input(monkeypatch, b"\xff\n")
    with pytest.raises(InvalidRequestError, match="standard input is no utf-8 text"):
        standard_input.read_all()

    bytes_on_input(monkeypatch, b"\xff\n")
    with pytest.raises(InvalidRequestError, match="standard input is no utf-8 text"):
        standard_input.read_line("")


def test_where_it_is_closed_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)

    assert not standard_input.is_piped()
    assert not standard_input.at_terminal()
    assert standard_input.read_line("") is None
