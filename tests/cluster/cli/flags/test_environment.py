"""Flags from the environment."""

import argparse
from collections.abc import Mapping, Sequence

import pytest

from shardline_cluster.cli.flags.environment import parse_arguments, variable_of
from shardline_cluster.errors import ConfigurationError


def parse(given: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(dest="command")
    serve, status = subparsers.add_parser("serve"), subparsers.add_parser("status")
    serve.add_argument("--grpc-port", type=int, default=50051)
    serve.add_argument("--launcher", choices=["ray", "local"], default="ray")
    serve.add_argument("--token", required=True)
    serve.add_argument("--quiet", action="store_true")
    serve.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True)
    serve.add_argument("--endpoint", action="append")
    status.add_argument("--grpc-port", type=int)
    return parse_arguments(parser, {"serve": serve, "status": status}, given, environment)


def test_a_variable_is_the_default_of_its_flag() -> None:
    arguments = parse(["serve"], {"SHARDLINE_GRPC_PORT": "9", "SHARDLINE_TOKEN": "t", "SHARDLINE_LAUNCHER": "local"})

    assert (arguments.grpc_port, arguments.token, arguments.launcher) == (9, "t", "local")


def test_a_flag_goes_before_its_variable_and_the_variable_before_the_default() -> None:
    environment = {"SHARDLINE_TOKEN": "t", "SHARDLINE_GRPC_PORT": "9"}

    assert parse(["serve", "--grpc-port", "8"], environment).grpc_port == 8
    assert parse(["serve"], environment).grpc_port == 9
    assert parse(["serve"], {"SHARDLINE_TOKEN": "t"}).grpc_port == 50051


def test_an_empty_variable_counts_as_absent() -> None:
    assert parse(["serve", "--token", "t"], {"SHARDLINE_GRPC_PORT": " "}).grpc_port == 50051


@pytest.mark.parametrize(
    ("text", "expected"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False)]
)
def test_switches_take_words(text: str, expected: bool) -> None:
    arguments = parse(["serve"], {"SHARDLINE_TOKEN": "t", "SHARDLINE_QUIET": text, "SHARDLINE_CACHE": text})

    assert (arguments.quiet, arguments.cache) == (expected, expected)


def test_a_list_is_separated_by_commas_and_the_command_line_replaces_it() -> None:
    environment = {"SHARDLINE_TOKEN": "t", "SHARDLINE_ENDPOINT": "a:1, b:2,"}

    assert parse(["serve"], environment).endpoint == ["a:1", "b:2"]
    assert parse(["serve", "--endpoint", "c:3", "--endpoint=d:4"], environment).endpoint == ["c:3", "d:4"]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SHARDLINE_GRPC_PORT", "many", "SHARDLINE_GRPC_PORT is 'many', which --grpc-port does not take"),
        ("SHARDLINE_LAUNCHER", "slurm", "SHARDLINE_LAUNCHER is 'slurm', but --launcher is one of: ray, local"),
        ("SHARDLINE_QUIET", "maybe", "SHARDLINE_QUIET is 'maybe', but --quiet is a switch"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(["serve", "--token", "t"], {variable: value})


def test_only_the_variables_of_the_given_command_are_looked_at() -> None:
    assert parse(["status"], {"SHARDLINE_LAUNCHER": "slurm"}).command == "status"


def test_variables_are_named_after_the_long_flag() -> None:
    assert variable_of("--max-num-seqs") == "SHARDLINE_MAX_NUM_SEQS"


def test_variables_count_for_the_flags_of_a_subcommand() -> None:
    parser = argparse.ArgumentParser()
    keys = parser.add_subparsers(dest="command").add_parser("keys")
    actions = keys.add_subparsers(dest="action", required=True)
    for name in ("create", "list"):
        actions.add_parser(name).add_argument("--api-key")

    arguments = parse_arguments(parser, {"keys": keys}, ["keys", "list"], {"SHARDLINE_API_KEY": "k"})

    assert (arguments.action, arguments.api_key) == ("list", "k")
    with pytest.raises(SystemExit):
        parse_arguments(parser, {"keys": keys}, ["keys", "--api-key", "x", "list"], {"SHARDLINE_API_KEY": "k"})
