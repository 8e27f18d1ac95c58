"""The command `shardline`: finds the command's module, reads its flags, and turns errors into one clear line."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from shardline.errors import ShardlineError as ClientError
from shardline_cluster.cli.command_line import COMMANDS, CommandLine, command_line
from shardline_cluster.cli.command_parser import WRONG_USAGE
from shardline_cluster.cli.flags.environment import parse_arguments, takes_variable
from shardline_cluster.cli.flags.flag_names import in_flags
from shardline_cluster.cli.flags.secret_arguments import redacted, take_out_of_sight
from shardline_cluster.errors import ConfigurationError, ShardlineError

FAILED = 1
INTERRUPTED = 130  # as shells have it: 128 + SIGINT

# What people type before they know the commands.
_MEANT = {"help": ["--help"], "--version": ["version"], "-V": ["version"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for a failure, 2 for wrong flags, 130 after Ctrl-C."""
    try:
        if argv is None:
            given = sys.argv[1:]
            take_out_of_sight(
                given, os.environ, whole_line=sys.orig_argv, takes=lambda variable: _takes(given, variable)
            )
        return _main(list(sys.argv[1:] if argv is None else argv))
    except ConfigurationError as error:
        return _complain(error, WRONG_USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()


def _takes(given: Sequence[str], variable: str) -> bool:
    return takes_variable(_needed(given).parsers, given, variable)


def _needed(given: Sequence[str]) -> CommandLine:
    return command_line(given[:1] if given and given[0] in COMMANDS else COMMANDS)


def _main(given: Sequence[str]) -> int:
    given = _MEANT.get(given[0], given) if len(given) == 1 else given
    line = _needed(given)
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
