"""`shardline chat` against a scripted router."""

import builtins
import io
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from shardline_cluster.cli.main import main
from tests.cluster.cli.interrupting import interrupt_once_shown
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.scripted_router import Fault, ScriptedRouter

TEXT = "Hello, world!"
WELCOME = "One message a line. Ctrl-C stops an answer, Ctrl-D leaves, /help tells more.\n"


def conversation(router: ScriptedRouter, call: int) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in router.calls[call][1].chat.messages]


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """A person at a terminal: types these lines, or Ctrl-C; then Ctrl-D."""
    typed: Iterator[str | type[BaseException]] = iter(lines)

    def next_line(_: str) -> str:
        line = next(typed, EOFError)
        if isinstance(line, str):
            return line
        raise line

    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr(builtins, "input", next_line)


def test_a_single_message_is_answered(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    router = start_router()

    assert main(["chat", "Hi", "--system", "Be brief.", "--endpoint", router.address, "--max-tokens", "9"]) == 0

    assert capsys.readouterr().out == f"{TEXT}\n"
    assert conversation(router, 0) == [("system", "Be brief."), ("user", "Hi")]
    assert router.calls[0][1].sampling.max_tokens == 9


def test_what_was_said_is_remembered_until_ctrl_d(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    type_lines(monkeypatch, "first", "  ", "second ")

    assert main(["chat", "--endpoint", router.address]) == 0

    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}\n\n"
    assert conversation(router, 1) == [("user", "first"), ("assistant", TEXT), ("user", "second")]


def test_lines_from_a_pipe_are_answered_without_prompts(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    monkeypatch.setattr("sys.stdin", io.StringIO("first\nsecond\n"))

    assert main(["chat", "--endpoint", router.address]) == 0

    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}\n"
    assert len(conversation(router, 1)) == 3


def test_ctrl_c_stops_the_answer_and_the_talk_goes_on_without_it(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router(pause_after=6)
    type_lines(monkeypatch, "long story", "short one")

    with interrupt_once_shown(TEXT[:3]):
        assert main(["chat", "--endpoint", router.address]) == 0

    output = capsys.readouterr()
    assert output.out == f"{TEXT[:3]}\n{TEXT}\n\n"
    assert output.err == f"{WELCOME}(stopped)\n"
    assert router.methods == ["Generate", "Cancel", "Generate"]
    assert conversation(router, 2) == [("user", "short one")]


def test_ctrl_c_at_the_prompt_clears_the_line_and_tells_how_to_leave(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    type_lines(monkeypatch, KeyboardInterrupt, "Hi")

    assert main(["chat", "--endpoint", router.address]) == 0

    output = capsys.readouterr()
    assert output.out == f"{TEXT}\n\n"
    assert output.err == f"{WELCOME}\n(Ctrl-D leaves)\n"


def test_a_failed_answer_at_a_terminal_ends_no_talk(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault(code=grpc.StatusCode.INVALID_ARGUMENT, details="the model has no chat template")
    router = start_router(faults=[fault])
    type_lines(monkeypatch, "first", "second")

    assert main(["chat", "--endpoint", router.address, "--stats"]) == 0

    error = capsys.readouterr().err
    assert "shardline: the model has no chat template\n" in error
    assert "13 tokens" in error
    assert conversation(router, 1) == [("user", "second")]


def test_a_failed_answer_in_a_script_is_an_exit_code(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault(code=grpc.StatusCode.INVALID_ARGUMENT, details="the model has no chat template")
    monkeypatch.setattr("sys.stdin", io.StringIO("first\nsecond\n"))

    assert main(["chat", "--endpoint", start_router(faults=[fault]).address]) == 1

    assert capsys.readouterr().err == "shardline: the model has no chat template\n"


def test_ctrl_c_ends_a_script(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router(pause_after=6)
    monkeypatch.setattr("sys.stdin", io.StringIO("first\nsecond\n"))

    with interrupt_once_shown(TEXT[:3]):
        assert main(["chat", "--endpoint", router.address]) == 130

    assert router.methods == ["Generate", "Cancel"]


def test_commands_are_done_and_not_sent(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    type_lines(monkeypatch, "first", "/clear", "/system Be brief.", "/set temperature 0.5", "second", "/bye", "never")

    assert main(["chat", "--endpoint", router.address]) == 0

    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}\n"
    assert conversation(router, 1) == [("system", "Be brief."), ("user", "second")]
    assert router.calls[1][1].sampling.temperature == 0.5
    assert len(router.calls) == 2


def test_a_wrong_command_at_a_terminal_ends_no_talk(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    type_lines(monkeypatch, "/dance", "//etc is what?")

    assert main(["chat", "--endpoint", router.address]) == 0

    assert "shardline: there is no command /dance: /help lists them" in capsys.readouterr().err
    assert conversation(router, 0) == [("user", "/etc is what?")]


def test_in_a_pipe_commands_work_too_and_a_wrong_one_is_an_exit_code(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    monkeypatch.setattr("sys.stdin", io.StringIO('"""one\ntwo"""\n/retry\nthree\\\nfour\n/dance\nnever\n'))

    assert main(["chat", "--endpoint", router.address]) == 1

    assert [conversation(router, call)[-1][1] for call in range(3)] == ["one\ntwo", "one\ntwo", "three\nfour"]
    assert [len(conversation(router, call)) for call in range(3)] == [1, 1, 3]
    assert "there is no command /dance" in capsys.readouterr().err


def test_a_retry_that_is_stopped_leaves_the_old_answer(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router = start_router()
    type_lines(monkeypatch, "first", "/retry", "second")
    router.faults = [Fault(after=99), Fault(code=grpc.StatusCode.INVALID_ARGUMENT, details="no")]

    assert main(["chat", "--endpoint", router.address]) == 0

    assert conversation(router, 2) == [("user", "first"), ("assistant", TEXT), ("user", "second")]


def test_what_was_typed_is_kept_for_the_next_time_unless_it_is_not_wanted(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    router = start_router()
    history = tmp_path / "state" / "shardline" / "chat_history"
    type_lines(monkeypatch, "Hi")
    assert main(["chat", "--endpoint", router.address, "--no-history"]) == 0
    assert not history.exists()

    type_lines(monkeypatch, "Hi")
    assert main(["chat", "--endpoint", router.address]) == 0
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
