"""Completion: the tree of commands, and a real bash that completes."""

import argparse
import contextlib
import io
import shutil
import subprocess

import pytest

from shardline_cluster.cli.command_line import COMMANDS
from shardline_cluster.cli.command_tree import CommandNode, Flag, command_tree
from shardline_cluster.cli.completion_scripts import fish_script, zsh_script
from shardline_cluster.cli.main import main


def a_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", add_help=False)
    commands = parser.add_subparsers()
    serve = commands.add_parser("serve", help="serve it; a lot of it", add_help=False)
    serve.add_argument("--kind", choices=["ray", "local"], help="who: he")
    serve.add_argument("--quiet", "-q", action="store_true", help="it's [quiet] (default %(default)s)")
    serve.add_argument("--hidden", help=argparse.SUPPRESS)
    keys = commands.add_parser("keys", help="keys", add_help=False).add_subparsers()
    keys.add_parser("list", help="all", add_help=False).add_argument("shape", choices=["round"])
    return parser


TREE = CommandNode(
    name="demo",
    commands=(
        CommandNode(
            name="serve",
            help="serve it",
            flags=(
                Flag(name="--kind", help="who", takes_value=True, choices=("ray", "local")),
                Flag(name="--quiet", help="its quiet", takes_value=False),
            ),
        ),
        CommandNode(name="keys", help="keys", commands=(CommandNode(name="list", help="all", words=("round",)),)),
    ),
)


def test_the_tree_holds_commands_flags_values_and_words() -> None:
    assert command_tree(a_parser(), name="demo") == TREE


def test_zsh_gets_a_function_for_each_command() -> None:
    script = zsh_script(TREE)

    assert script.startswith("#compdef demo\n")
    assert "'*--kind[who]:value:(ray local)'" in script
    assert "keys) _demo_keys ;;" in script
    assert "'*:word:(round)'" in script


def test_fish_gets_a_line_for_each_flag() -> None:
    lines = fish_script(TREE).splitlines()

    assert "complete -c demo -f -n '__fish_use_subcommand' -a serve -d 'serve it'" in lines
    assert "complete -c demo -n '__fish_seen_subcommand_from serve' -l kind -x -a 'ray local' -d 'who'" in lines


@pytest.fixture(scope="module")
def bash_completion() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(["completion", "bash"]) == 0
    return output.getvalue()


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    bash = shutil.which("bash")
    assert bash is not None, "the tests need bash"
    line = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shardline; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    run = subprocess.run(
        [bash, "--norc", "-c", f"set -u; complete() {{ :; }}\n{script}\n{asked}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    return run.stdout.split()


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["shardline", "ser"], ["serve"]),
        (["shardline", "comp"], ["completion"]),
        (["shardline", "serve", "--max-num-b"], ["--max-num-batched-tokens"]),
        (["shardline", "serve", "some.gguf", "--launcher", ""], ["ray", "local"]),
        (["shardline", "serve", "--launcher", "l"], ["local"]),
        (["shardline", "serve", "--chat-template", "x"], []),
        (["shardline", "chat", "--no-hi"], ["--no-history"]),
        (["shardline", "completion", ""], ["bash", "fish", "zsh"]),
        (["shardline", "keys", "li"], ["list"]),
        (["shardline", "dance", "x"], []),
    ],
)
def test_a_real_bash_completes(words: list[str], expected: list[str], bash_completion: str) -> None:
    assert completed(bash_completion, *words) == expected


@pytest.mark.process
def test_bash_offers_every_command(bash_completion: str) -> None:
    assert sorted(completed(bash_completion, "shardline", "")) == sorted(COMMANDS)


@pytest.mark.process
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0

    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    if (program := shutil.which(shell)) is not None:
        assert subprocess.run([program, "-n"], input=script, text=True).returncode == 0
