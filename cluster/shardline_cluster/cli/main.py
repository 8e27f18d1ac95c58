"""The command `shardline`: finds the command's module, reads its flags, and turns errors into one clear line.

Each command is a module of this package with `add_parser(subparsers)` and `run(arguments) -> int`.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Protocol, cast

from shardline.errors import ShardlineError as ClientError
from shardline_cluster.cli.command_parser import WRONG_USAGE
from shardline_cluster.cli.flags.environment import parse_arguments
from shardline_cluster.cli.flags.flag_names import in_flags
from shardline_cluster.cli.flags.secret_arguments import redacted, take_out_of_sight
from shardline_cluster.cli.help_format import make_readable
from shardline_cluster.cli.tour import TourParser
from shardline_cluster.errors import ConfigurationError, ShardlineError

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

FAILED = 1
INTERRUPTED = 130  # as shells have it: 128 + SIGINT

# What people type before they know the commands.
_MEANT = {"help": ["--help"], "--version": ["version"], "-V": ["version"]}


class Command(Protocol):
    """A module that is a command."""

    def add_parser(self, subparsers: Any) -> argparse.ArgumentParser:
        """Adds the command's own parser to `subparsers` and returns it."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Does what the command does and returns its exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for a failure, 2 for wrong flags, 130 after Ctrl-C."""
    try:
        if argv is None:
            take_out_of_sight(sys.argv[1:], os.environ, whole_line=sys.orig_argv)
        return _main(list(sys.argv[1:] if argv is None else argv))
    except ConfigurationError as error:
        return _complain(error, WRONG_USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()


def _main(given: Sequence[str]) -> int:
    given = _MEANT.get(given[0], given) if len(given) == 1 else given
    line = command_line(given[:1] if given and given[0] in COMMANDS else COMMANDS)
    try:
        arguments = _parse(line, given, os.environ)
    except ConfigurationError as error:
        return _complain(error, WRONG_USAGE)
    except SystemExit as end:  # argparse has printed its help, or what is wrong
        return end.code if isinstance(end.code, int) else WRONG_USAGE
    try:
        return line.commands[arguments.command].run(arguments)
    except (ShardlineError, ClientError) as error:
        return _complain(in_flags(str(error), vars(arguments)), FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _complain(_refused_by_the_system(error), FAILED)


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


def _parse(line: CommandLine, given: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    if not given:
        line.parser.print_help(sys.stderr)
        line.parser.exit(WRONG_USAGE)
    return parse_arguments(line.parser, line.parsers, given, environment)


def _refused_by_the_system(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    return (
        f"the system refused what was to be done: {error.strerror or error}{place}. Look at the space that is left on "
        "the disk, at the folder's permissions, and at the limits of this shell (`ulimit -a`)"
    )


def _complain(error: object, exit_code: int) -> int:
    print(f"shardline: {redacted(str(error))}", file=sys.stderr)
    return exit_code


def _reader_left() -> int:
    """Whoever read our output (`| head`) has gone; the interpreter must not stumble when it flushes the rest."""
    if sys.__stdout__ is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.__stdout__.fileno())
        os.close(nowhere)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
