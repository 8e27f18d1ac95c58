"""The parser of a command's flags. A mistake is told in two lines; argparse would print all flags above it."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

WRONG_USAGE = 2  # exit code, as argparse has it


class CommandParser(argparse.ArgumentParser):
    """Ends with what is wrong and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Says it and exits with WRONG_USAGE."""
        self.exit(WRONG_USAGE, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def unknown_flags(unknown: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """What to say about words of a command line that nothing takes: the flag that was perhaps meant with each.

    Values of such flags are not repeated: a mistyped flag may have been one of a secret.
    """
    # argparse has no public way to list a parser's flags.
    known = [flag for action in parser._actions for flag in action.option_strings]
    flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if not flags:
        return f"{unknown[0]!r} is one word too many: put quotes around what belongs together"
    return "; ".join(_unknown(flag, known) for flag in flags)


def _unknown(flag: str, known: list[str]) -> str:
    close = difflib.get_close_matches(flag, known, n=1)
    return f"there is no flag {flag}" + (f": did you mean {close[0]}?" if close else "")
