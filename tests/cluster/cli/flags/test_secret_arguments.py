"""Secrets on a command line: which are moved where, and that no message repeats one."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shardline_cluster.cli.flags.secret_arguments import DiscreetParser, redacted, split_secrets, take_out_of_sight
from shardline_cluster.cli.main import main
from shardline_cluster.errors import ConfigurationError

URL = "redis://user:pass@host:6379/0"


@pytest.mark.parametrize(
    ("given", "kept", "moved"),
    [
        (["serve", "m", "--redis-url", URL], ["serve", "m"], {"SHARDLINE_REDIS_URL": URL}),
        (["serve", f"--redis-url={URL}", "m"], ["serve", "m"], {"SHARDLINE_REDIS_URL": URL}),
        (
            ["status", "--redis-url", "redis://h?password=x"],
            ["status"],
            {"SHARDLINE_REDIS_URL": "redis://h?password=x"},
        ),
        (["status", "--redis-url", "redis://host:1"], ["status", "--redis-url", "redis://host:1"], {}),
        (["chat", "--api-key", "one", "hi"], ["chat", "hi"], {"SHARDLINE_API_KEY": "one"}),
        (["serve", "--api-key=one", "--api-key", "two"], ["serve"], {"SHARDLINE_API_KEY": "one,two"}),
        (["chat", "--api-key"], ["chat", "--api-key"], {}),
        (["chat", "--api-key-file", "f"], ["chat", "--api-key-file", "f"], {}),
        (["generate", "--", "--api-key", "one"], ["generate", "--", "--api-key", "one"], {}),
        (
            ["generate", "--api-key", "k", "--", "--api-key"],
            ["generate", "--", "--api-key"],
            {"SHARDLINE_API_KEY": "k"},
        ),
    ],
)
def test_secrets_are_split_from_the_rest(given: list[str], kept: list[str], moved: dict[str, str]) -> None:
    assert split_secrets(given) == (kept, moved)


def test_a_key_with_a_comma_cannot_be_moved_and_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="holds a comma") as refused:
        split_secrets(["serve", "--api-key", "half,other"])

    assert "half" not in str(refused.value)


def test_the_process_begins_anew_with_its_own_interpreter_and_options() -> None:
    replaced: list[tuple[Any, ...]] = []
    given = ["chat", "--api-key", "one"]

    take_out_of_sight(
        given,
        {"A": "b"},
        whole_line=["python", "-X", "dev", "shardline", *given],
        takes=lambda variable: variable == "SHARDLINE_API_KEY",
        replace=lambda *a: replaced.append(a),
    )
    line = ["python", "shardline", "chat"]
    take_out_of_sight(["chat"], {}, whole_line=line, takes=lambda _: True, replace=lambda *a: replaced.append(a))

    line = ["python", "-X", "dev", "shardline", "chat"]
    assert replaced == [(sys.executable, line, {"A": "b", "SHARDLINE_API_KEY": "one"})]


def test_arguments_that_no_command_line_shows_are_left() -> None:
    replaced: list[tuple[Any, ...]] = []

    take_out_of_sight(
        ["chat", "--api-key", "one"],
        {},
        whole_line=["python", "other.py"],
        takes=lambda _: True,
        replace=lambda *a: replaced.append(a),
    )

    assert not replaced


def test_a_flag_that_the_command_does_not_know_is_left_to_be_refused() -> None:
    replaced: list[tuple[Any, ...]] = []
    given = ["models", "--api-key", "one"]

    take_out_of_sight(
        given,
        {},
        whole_line=["python", "shardline", *given],
        takes=lambda _: False,
        replace=lambda *a: replaced.append(a),
    )

    assert not replaced


@pytest.mark.process
def test_a_command_without_the_flag_refuses_it_and_repeats_no_key() -> None:
    command = [sys.executable, "-m", "shardline_cluster.cli.main", "models", "--api-key", "sesame"]

    ended = subprocess.run(
        command, env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)), capture_output=True, text=True, timeout=30
    )

    assert ended.returncode == 2
    assert "--api-key" in ended.stderr
    assert "sesame" not in ended.stdout + ended.stderr


@pytest.mark.process
def test_a_real_process_shows_its_secret_to_nobody_and_still_knows_it(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from shardline_cluster.cli.flags.secret_arguments import take_out_of_sight\n"
        "take_out_of_sight(sys.argv[1:], os.environ, whole_line=sys.orig_argv, takes=lambda _: True)\n"
        "print(os.getpid(), open('/proc/self/cmdline').read(), os.environ['SHARDLINE_API_KEY'])\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))

    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", "a", "--api-key", "sl-secret-key", "b c"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = process.communicate(timeout=30)[0]

    pid, _, rest = told.partition(" ")
    line, _, key = rest.rpartition(" ")
    assert int(pid) == process.pid
    assert line.split("\0")[-4:-1] == [str(tmp_path / "script.py"), "a", "b c"]
    assert key == "sl-secret-key\n"


@pytest.mark.parametrize(
    "text",
    [
        "the URL redis://user:hush@host:1/0 is none",
        "redis://:hu/sh@host and more",
        "rediss://host?x=1&password=hush&y=2",
        "unrecognized arguments: --api-key hush",
        "unrecognized arguments: --api-key=hush",
        "unrecognized arguments: --api-kye sl-abcdef123456-hush",
    ],
)
def test_what_looks_like_a_secret_is_starred(text: str) -> None:
    told = redacted(text)

    assert "***" in told
    assert not any(part in told for part in ("hush", "hu/sh"))


@pytest.mark.parametrize(
    "text", ["127.0.0.1:50051 does not answer", "redis://host:6379/0", "slower, sl-1", "rediss://USER:PASSWORD@HOST"]
)
def test_what_does_not_is_left(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "given",
    [
        ["version", "--redis-url", "redis://user:hush@host"],
        ["generate", "x", "--max-tokens", "redis://user:hush@host"],
        ["status", "--redis-u", "redis://user:hush@host"],
        ["status", "--redis-url", "ftp://user:hush@host"],
        ["serve", "--api-keys", "sl-abcdef123456-hush"],
        ["sl-abcdef123456-hush"],
    ],
)
def test_no_error_of_a_command_repeats_a_secret(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) != 0

    told = capsys.readouterr()
    assert "hush" not in told.err + told.out
    assert told.err


def test_flags_are_not_to_be_shortened() -> None:
    parser = DiscreetParser()
    parser.add_argument("--redis-url")

    with pytest.raises(SystemExit):
        parser.parse_args(["--redis-u", "redis://h"])
    assert parser.parse_args([]) == argparse.Namespace(redis_url=None)
