"""How the help of a command reads: a short usage line, and flags with room for their words."""

import argparse
import shutil

_WIDEST = 110  # characters; longer lines are hard to follow
_FLAG_COLUMNS = 30


def make_readable(parser: argparse.ArgumentParser) -> None:
    """Gives a command and its subcommands that form. Argparse's own usage would name every flag first."""
    parser.usage = _usage(parser)
    parser.formatter_class = HelpFormat
    for action in parser._actions:  # argparse has no public way to list a parser's subcommands
        if isinstance(action, argparse._SubParsersAction):
            for subcommand in action.choices.values():
                make_readable(subcommand)


class HelpFormat(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as they are written, flags in two columns."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns - 2
        super().__init__(prog, max_help_position=_FLAG_COLUMNS, width=min(columns, _WIDEST))


def _usage(parser: argparse.ArgumentParser) -> str:
    arguments = [action for action in parser._actions if not action.option_strings]
    words = [parser.prog, *(_word(action) for action in arguments), "[flags]"]
    return " ".join(words).replace("%", "%%")


def _word(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return f"{action.metavar or 'COMMAND'} ..."
    name = str(
        action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    )
    return f"[{name}]" if action.nargs in ("?", "*") else f"{name} [{name} ...]" if action.nargs == "+" else name
