"""The command as a whole: help for newcomers, one line for errors, exit codes for scripts."""

import importlib
from types import SimpleNamespace

import pytest

from shardline_cluster.cli.command_line import COMMANDS
from shardline_cluster.cli.main import main
from tests.cluster.client.dead_sockets import unused_address


@pytest.mark.parametrize("argv", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_is_there_for_everything(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0

    assert "usage: shardline" in capsys.readouterr().out


def test_the_first_help_names_every_command_and_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])

    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "SHARDLINE_MAX_TOKENS" in text


@pytest.mark.parametrize("argv", [[], ["dance"], ["version", "--dance"], ["generate", "x", "--max-tokens", "0"]])
def test_wrong_usage_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2

    assert "--help`" in capsys.readouterr().err


def test_a_newcomer_without_a_command_gets_the_whole_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2

    assert "shardline serve smollm2:135m" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_usual_flag_for_the_version_works(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0

    assert capsys.readouterr().out.startswith("shardline ")


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0

    assert "COMMAND" in capsys.readouterr().out


def test_an_unknown_flag_names_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--port", "1"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("shardline status: there is no flag --port")
    assert error.endswith("See `shardline status --help`.\n")


def test_a_wrong_variable_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHARDLINE_MAX_TOKENS", "0")

    assert main(["generate", "x"]) == 2

    error = capsys.readouterr().err
    assert error.startswith(
        "shardline: SHARDLINE_MAX_TOKENS is '0', which --max-tokens does not take: 0 is out of bounds"
    )
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "x"], "no server named 'default' is running on this machine"),
        (["chat", "x", "--name", "other"], "no server named 'other' is running on this machine"),
        (["status"], "no server named 'default' is running on this machine"),
        (["generate", "x", "--endpoint", "nowhere"], "the endpoint 'nowhere' is not an address"),
    ],
)
def test_no_cluster_is_one_line_and_exit_code_1(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 1

    output = capsys.readouterr()
    assert message in output.err
    assert (output.out, output.err.count("\n")) == ("", 1)


def test_no_router_is_told_at_once_with_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    address = unused_address()

    assert main(["generate", "x", "--endpoint", address]) == 1

    assert f"no router answers at {address}: is `shardline serve` running there?" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 1)])
def test_interrupts_and_readers_that_leave_are_no_tracebacks(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("shardline_cluster.cli.commands.version.run", fail)

    assert main(["version"]) == code

    assert capfd.readouterr().err == ""


def test_a_command_whose_packages_are_missing_says_which_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(name: str) -> object:
        if name == "shardline_cluster.cli.commands.serve":
            raise ModuleNotFoundError("No module named 'redis.asyncio'", name="redis.asyncio")
        return importlib.import_module(name)

    monkeypatch.setattr("shardline_cluster.cli.command_line.importlib", SimpleNamespace(import_module=import_module))

    assert main(["serve", "smollm2:135m", "--replicas", "2"]) == 1
    assert main(["version"]) == 0
    assert main(["--help"]) == 0

    output = capsys.readouterr()
    assert output.err == (
        "shardline: `shardline serve` needs the package 'redis', which is not installed: "
        "`pip install '.[all]'` in a clone brings it\n"
    )


def test_ctrl_c_while_the_commands_are_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(_: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("shardline_cluster.cli.command_line.importlib", SimpleNamespace(import_module=import_module))

    assert main(["version"]) == 130
