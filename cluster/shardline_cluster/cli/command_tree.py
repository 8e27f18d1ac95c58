"""All commands and their flags as plain data, read from their parsers: what a shell needs to complete a line."""

import argparse
from dataclasses import dataclass

_LONGEST_HELP = 60  # characters; a list of candidates is no manual


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flag by its long name."""

    name: str  # with its dashes
    help: str
    takes_value: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandNode:
    """A command, or the whole command line."""

    name: str
    help: str = ""
    flags: tuple[Flag, ...] = ()
    words: tuple[str, ...] = ()  # that an argument may be
    commands: "tuple[CommandNode, ...]" = ()


def command_tree(parser: argparse.ArgumentParser, *, name: str, help_text: str = "") -> CommandNode:
    """Walks a parser and those of its subcommands."""
    # argparse has no public way to list what a parser knows.
    actions = parser._actions
    subcommands = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    arguments = [action for action in actions if not action.option_strings and action not in subcommands]
    return CommandNode(
        name=name,
        help=help_text,
        flags=tuple(flag for action in actions for flag in _flags(parser, action)),
        words=tuple(str(choice) for action in arguments for choice in action.choices or ()),
        commands=tuple(node for action in subcommands for node in _subcommands(action)),
    )


def _subcommands(action: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[CommandNode]:
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return [
        command_tree(parser, name=name, help_text=_short(helps.get(name, "")))
        for name, parser in action.choices.items()
    ]


def _flags(parser: argparse.ArgumentParser, action: argparse.Action) -> list[Flag]:
    if action.help == argparse.SUPPRESS:
        return []
    told = _short(parser._get_formatter()._expand_help(action)) if action.help else ""
    takes_value = action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction)
    choices = tuple(str(choice) for choice in action.choices or ())
    return [
        Flag(name=option, help=told, takes_value=takes_value, choices=choices)
        for option in action.option_strings
        if option.startswith("--")
    ]


def _short(text: str) -> str:
    """The first part, without what shells would take for their own."""
    first = text.split(";")[0].split(" (")[0].split(": ")[0]
    plain = "".join(character for character in first if character not in "'\"`\\[]$!{}")
    return plain if len(plain) <= _LONGEST_HELP else f"{plain[: _LONGEST_HELP - 2].rstrip()} …"
