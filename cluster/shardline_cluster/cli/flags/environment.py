"""Flags from the environment: `--max-tokens` of any command is also SHARDLINE_MAX_TOKENS. The command line goes first,
then the environment, then the file that `--config` names, then a flag's default.

A flag that may be repeated takes a list separated by commas, a switch takes 1, true, yes, on or 0, false, no, off. An
empty variable counts as absent. No flag may be called `--port`: Kubernetes sets SHARDLINE_PORT beside a service of that
name.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardline_cluster.cli.command_parser import unknown_flags
from shardline_cluster.cli.flags.config_file import CONFIG_FLAG, apply_config, given_config, read_config
from shardline_cluster.errors import ConfigurationError

PREFIX = "SHARDLINE_"
_SWITCH_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def parse_arguments(
    parser: argparse.ArgumentParser,
    commands: Mapping[str, argparse.ArgumentParser],
    given: Sequence[str],
    environment: Mapping[str, str],
) -> argparse.Namespace:
    """Parses a command line; what it leaves out comes from the environment, else from a file, else from the flags'
    defaults.

    `commands` are the parsers of the commands by name, which may have subcommands; only the variables of the one that
    is given are looked at.

    Raises:
        ConfigurationError: a variable's value, or one in the file, is not what its flag takes.
        SystemExit: by argparse, after its help or its error.
    """
    command = _given_command(commands, given)
    config = given_config(given[1:], environment, variable=variable_of(CONFIG_FLAG)) if _takes_file(command) else ""
    lists = _apply_all(command, given[0], Path(config) if config else None, environment) if command else []
    arguments, unknown = parser.parse_known_args(given)
    if unknown:
        (command or parser).error(unknown_flags(unknown, command or parser))
    if getattr(arguments, "config", None) not in (None, config):
        raise ConfigurationError("write --config in full: an abbreviation is found too late to read the file")
    for action in lists:
        # argparse appends to a default; here the line replaces the environment as everywhere else.
        value = getattr(arguments, action.dest)
        if value is not action.default:
            setattr(arguments, action.dest, value[len(action.default) :])
    return arguments


def _given_command(
    commands: Mapping[str, argparse.ArgumentParser], given: Sequence[str]
) -> argparse.ArgumentParser | None:
    """The parser of the command that is given, or of its subcommand."""
    command = commands.get(given[0]) if given else None
    for action in command._actions if command else ():
        if isinstance(action, argparse._SubParsersAction) and len(given) > 1:
            return action.choices.get(given[1], command)
    return command


def takes_variable(commands: Mapping[str, argparse.ArgumentParser], given: Sequence[str], variable: str) -> bool:
    """Whether the command that is given has the flag of this environment variable."""
    command = _given_command(commands, given)
    return command is not None and any(variable_of(_long_flag(action)) == variable for action in command._actions)


def _takes_file(command: argparse.ArgumentParser | None) -> bool:
    return command is not None and any(CONFIG_FLAG in action.option_strings for action in command._actions)


def _apply_all(
    command: argparse.ArgumentParser, name: str, config: Path | None, environment: Mapping[str, str]
) -> list[argparse.Action]:
    """The file's values first: those of the environment replace them."""
    from_file = apply_config(read_config(config), command, command=name) if config is not None else []
    from_environment = _apply(command, environment)
    return [*from_file, *(action for action in from_environment if action not in from_file)]


def _apply(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> list[argparse.Action]:
    """Makes the variables defaults and returns the flags that collect a list and got one."""
    lists: list[argparse.Action] = []
    # argparse has no public way to list a parser's flags.
    for action in parser._actions:
        flag = _long_flag(action)
        text = environment.get(variable_of(flag), "").strip() if flag else ""
        if text and not isinstance(action, argparse._HelpAction):
            action.default = _value_of(action, flag, text)
            action.required = False
            if isinstance(action, argparse._AppendAction):
                lists.append(action)
    return lists


def variable_of(flag: str) -> str:
    """The variable of a long flag: `--grpc-port` is SHARDLINE_GRPC_PORT."""
    return PREFIX + flag.removeprefix("--").replace("-", "_").upper()


def _long_flag(action: argparse.Action) -> str:
    return next((option for option in action.option_strings if option.startswith("--")), "")


def _value_of(action: argparse.Action, flag: str, text: str) -> Any:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return _switch(flag, text)
    if isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+"):
        return [_converted(action, flag, part.strip()) for part in text.split(",") if part.strip()]
    return _converted(action, flag, text)


def _switch(flag: str, text: str) -> bool:
    value = _SWITCH_WORDS.get(text.lower())
    if value is None:
        raise ConfigurationError(
            f"{variable_of(flag)} is {text!r}, but {flag} is a switch: set it to 1 or 0, or leave it out"
        )
    return value


def _converted(action: argparse.Action, flag: str, text: str) -> Any:
    try:
        value = action.type(text) if callable(action.type) else text
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        reason = f": {error}" if isinstance(error, argparse.ArgumentTypeError) else ""
        raise ConfigurationError(
            f"{variable_of(flag)} is {text!r}, which {flag} does not take{reason} (see --help)"
        ) from None
    if action.choices is not None and value not in action.choices:
        allowed = ", ".join(str(choice) for choice in action.choices)
        raise ConfigurationError(f"{variable_of(flag)} is {text!r}, but {flag} is one of: {allowed}")
    return value
