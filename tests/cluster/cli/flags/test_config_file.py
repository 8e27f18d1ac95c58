"""Flags from a file: precedence, types, and mistakes told with file, line and key."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from shardline_cluster.cli.flags.config_file import add_config_flag
from shardline_cluster.cli.flags.environment import parse_arguments
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.main import main
from shardline_cluster.errors import ConfigurationError


def parse(given: Sequence[str], environment: Mapping[str, str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(dest="command")
    serve, status = subparsers.add_parser("serve"), subparsers.add_parser("status")
    serve.add_argument("model", nargs="?")
    serve.add_argument("--grpc-port", type=number_from(0, 65_535, whole=True), default=50051)
    serve.add_argument("--launcher", choices=["ray", "local"], default="ray")
    serve.add_argument("--served-model-name")
    serve.add_argument("--token", required=True)
    serve.add_argument("--quiet", action="store_true")
    serve.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True)
    serve.add_argument("--endpoint", action="append")
    add_config_flag(serve)
    return parse_arguments(parser, {"serve": serve, "status": status}, given, environment or {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def test_keys_are_the_flags_names_with_dashes_or_underscores(file: Path) -> None:
    file.write_text(
        "# what we serve\n"
        "model: hf:org/name\n"
        "grpc_port: 9\n"
        "launcher: local\n"
        "token: t\n"
        "quiet: true\n"
        "cache: no\n"
        "endpoint: [a:1, b:2]\n"
        "served-model-name: '7'\n"
    )

    arguments = parse(["serve", "--config", str(file)])

    assert (arguments.model, arguments.grpc_port, arguments.launcher) == ("hf:org/name", 9, "local")
    assert (arguments.quiet, arguments.cache, arguments.endpoint) == (True, False, ["a:1", "b:2"])
    assert arguments.served_model_name == "7"


def test_the_line_goes_before_the_environment_and_that_before_the_file(file: Path) -> None:
    file.write_text("token: t\ngrpc-port: 1\nendpoint: [a:1]\nlauncher: local\n")
    environment = {"SHARDLINE_GRPC_PORT": "2", "SHARDLINE_ENDPOINT": "b:2"}
    line = ["serve", f"--config={file}", "--grpc-port", "3", "--endpoint", "c:3"]

    assert (parse(line, environment).grpc_port, parse(line, environment).endpoint) == (3, ["c:3"])
    assert (parse(line[:2], environment).grpc_port, parse(line[:2], environment).endpoint) == (2, ["b:2"])
    assert (parse(line[:2]).grpc_port, parse(line[:2]).endpoint) == (1, ["a:1"])
    assert parse([*line[:2], "--endpoint", "c:3"]).endpoint == ["c:3"]


def test_a_model_on_the_line_goes_before_the_files(file: Path) -> None:
    file.write_text("token: t\nmodel: one\n")

    assert parse(["serve", "two", "--config", str(file)]).model == "two"


def test_the_file_itself_can_be_named_in_the_environment(file: Path) -> None:
    file.write_text("token: from-file\n")

    assert parse(["serve"], {"SHARDLINE_CONFIG": str(file)}).token == "from-file"


def test_a_single_value_is_a_list_of_one_and_an_empty_file_says_nothing(file: Path) -> None:
    file.write_text("endpoint: a:1\n")
    assert parse(["serve", "--token", "t", "--config", str(file)]).endpoint == ["a:1"]
    file.write_text("# nothing yet\n")
    assert parse(["serve", "--token", "t", "--config", str(file)]).grpc_port == 50051


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("token: t\ngrpc-prot: 1\n", ":2: grpc-prot: `shardline serve` has no such flag: did you mean grpc-port?"),
        ("zzz: 1\n", ":1: zzz: `shardline serve` has no such flag: the keys are the flags that"),
        ("config: x.yaml\n", ":1: config: `shardline serve` has no such flag"),
        ("\n\ngrpc-port: many\n", ":3: grpc-port: it is 'many', which this flag does not take: 'many' is not a whole"),
        ("grpc-port: 70000\n", "grpc-port: it is '70000', which this flag does not take: 70000 is out of bounds"),
        ("grpc-port: true\n", "grpc-port: true is a bool to YAML"),
        ("grpc-port: [1, 2]\n", "grpc-port: it takes one value, not a list"),
        ("launcher: slurm\n", "launcher: it is 'slurm', but must be one of: ray, local"),
        ("quiet: maybe\n", "quiet: it is 'maybe', but this flag is a switch: write true or false"),
        ("quiet: 1\n", "quiet: it is '1', but this flag is a switch"),
        ("served-model-name: 007\n", "served-model-name: 007 is a int to YAML, but this flag takes text"),
        ("token:\n", "token: it has no value"),
        ("token: {a: b}\n", "token: the value is more than a word"),
        ("endpoint: [[a]]\n", "endpoint: the value is more than a word"),
        ("token: a\ngrpc-port: 1\ntoken: b\n", ":3: token: it stands in line 1 already"),
        ("- serve\n", ":1: expected lines of `flag: value`"),
        ("token: 'open\n", ": this is no YAML: found unexpected end of stream"),
        ("? [a]\n: b\n", ":1: a key is no name"),
        ("a: !!python/object:os.system x\n", "a: `shardline serve` has no such flag"),
        ("token: " + "[" * 500, "this is no YAML"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(content: str, told: str, file: Path) -> None:
    file.write_text(content)

    with pytest.raises(ConfigurationError) as error:
        parse(["serve", "--config", str(file)])

    assert str(error.value).startswith(str(file))
    assert told in str(error.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--config .*none\.yaml cannot be read: No such file"):
        parse(["serve", "--config", str(tmp_path / "none.yaml")])


def test_an_abbreviation_is_refused_since_the_file_would_not_count(file: Path) -> None:
    file.write_text("token: t\n")

    with pytest.raises(ConfigurationError, match="write --config in full"):
        parse(["serve", "--token", "t", "--conf", str(file)])


def test_a_flag_without_its_file_is_argparses_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["serve", "--token", "t", "--config"])

    assert "--config: expected one argument" in capsys.readouterr().err


def test_serve_itself_takes_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("engine: simulated\nmax-num-seq: 3\n")

    assert main(["serve", "--config", str(file)]) == 2

    assert capsys.readouterr().err == (
        f"shardline: {file}:2: max-num-seq: `shardline serve` has no such flag: did you mean max-num-seqs?\n"
    )
