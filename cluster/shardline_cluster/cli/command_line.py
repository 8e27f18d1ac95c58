"""All commands of `shardline`: their names, and their modules and parsers once they are needed.

Each command is a module of `commands` with `add_parser(subparsers)` and `run(arguments) -> int`.
"""

import argparse
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Protocol, cast

from shardline_cluster.cli.help_format import make_readable
from shardline_cluster.cli.tour import TourParser
from shardline_cluster.errors import ConfigurationError

# In the order and the groups of the help. A new command is one more line.
# fmt: off
COMMAND_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "Serve and ask": (
        "serve",
        "generate",
        "chat",
    ),
    "Models on this machine": (
        "pull",
        "models",
        "show",
        "plan",
        "rm",
    ),
    "Look after a cluster": (
        "status",
        "deploy",
        "undeploy",
        "scale",
        "drain",
        "keys",
        "usage",
    ),
    "One process of a cluster of several hosts": (
        "router",
        "controller",
        "replica",
    ),
    "This installation": (
        "doctor",
        "completion",
        "version",
    ),
})
# fmt: on
COMMANDS = tuple(chain.from_iterable(COMMAND_GROUPS.values()))


class Command(Protocol):
    """A module that is a command."""

    def add_parser(self, subparsers: Any) -> argparse.ArgumentParser:
        """Adds the command's own parser to `subparsers` and returns it."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Does what the command does and returns its exit code."""
        ...


@dataclass(frozen=True, slots=True)
class CommandLine:
    """All commands together: by name, with their parsers and the one above them."""

    parser: TourParser
    commands: Mapping[str, Command]
    parsers: Mapping[str, argparse.ArgumentParser]


def command_line(names: Sequence[str] = COMMANDS) -> CommandLine:
    """Loads these commands: each that is not needed would cost a tenth of a second."""
    parser = TourParser(prog="shardline", groups=COMMAND_GROUPS)
    commands = {name: _load(name) for name in names}
    parsers = {name: command.add_parser(parser.commands) for name, command in commands.items()}
    for command_parser in parsers.values():
        make_readable(command_parser)
    return CommandLine(parser, commands, parsers)


def _load(name: str) -> Command:
    """The command's module, or a stand-in where a package that it needs is not installed: the others work without."""
    try:
        return cast("Command", importlib.import_module(f"shardline_cluster.cli.commands.{name}"))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("shardline"):
            raise
        return MissingCommand(name, error.name.partition(".")[0])


class MissingCommand:
    """A command that this installation cannot run, which says so instead of going missing."""

    def __init__(self, name: str, package: str) -> None:
        self._name = name
        self._package = package

    def add_parser(self, subparsers: Any) -> argparse.ArgumentParser:
        """Takes any flags as plain words, since no flag begins with this character: the answer is the same."""
        parser: argparse.ArgumentParser = subparsers.add_parser(
            self._name, help="(not installed: pip install '.[all]')", prefix_chars="\0", add_help=False
        )
        parser.add_argument("ignored", nargs="*")
        return parser

    def run(self, _arguments: argparse.Namespace) -> int:
        """Says what to install.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"`shardline {self._name}` needs the package {self._package!r}, which is not installed: "
            f"`pip install '.[all]'` in a clone brings it"
        )
