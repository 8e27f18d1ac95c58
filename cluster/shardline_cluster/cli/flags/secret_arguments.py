"""Secrets on a command line: moved to where only their own user can see them, and repeated in no message.

Every user of a machine can read every process's command line. So a command that finds a secret in its own begins anew,
in the same process, with the secret in its environment, which only its user and root can read.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from shardline_cluster.cli.command_parser import CommandParser
from shardline_cluster.cli.flags.environment import variable_of
from shardline_cluster.errors import ConfigurationError

API_KEY, REDIS_URL = "--api-key", "--redis-url"
_IS_SECRET: Mapping[str, Callable[[str], bool]] = {
    API_KEY: bool,
    REDIS_URL: lambda url: "@" in url or "password=" in url,
}

_SECRETS = (
    re.compile(r"(?<=://)(?!USER:PASSWORD@)\S*(?=@)"),  # user and password of a URL
    re.compile(r"(?<=password=)[^\s&'\"]+"),
    re.compile(r"(?<=--api-key[ =])\S+"),
    re.compile(r"\bsl-[\w-]{8,}"),
)

Replace = Callable[[str, list[str], dict[str, str]], Any]  # a program, its arguments and its environment


def take_out_of_sight(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    whole_line: Sequence[str],
    takes: Callable[[str], bool],
    replace: Replace = os.execve,
) -> None:
    """Begins this process anew without the secrets in `arguments`; returns if it has none.

    `whole_line` is the process's own, which ends with them; where it does not, another program has made them up, and
    they are to be seen by nobody. `takes` says whether the command reads such a variable; one that does not is going to
    refuse the flag, and end.

    Raises:
        ConfigurationError: a secret cannot be moved.
    """
    kept, moved = split_secrets(arguments)
    before = len(whole_line) - len(arguments)
    if moved and all(takes(variable) for variable in moved) and list(whole_line[before:]) == list(arguments):
        sys.stdout.flush()
        replace(sys.executable, [*whole_line[:before], *kept], {**environment, **moved})


def split_secrets(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without secrets, and the secrets by environment variable.

    Raises:
        ConfigurationError: an API key holds a comma, which separates keys in a variable.
    """
    kept, secrets = list[str](), dict[str, list[str]]()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*kept, word, *rest], _joined(secrets)
        flag, equals, value = word.partition("=")
        if flag in _IS_SECRET and not equals and rest:
            value = rest[0]
        if flag not in _IS_SECRET or not _IS_SECRET[flag](value):
            kept.append(word)
            continue
        secrets.setdefault(flag, []).append(value)
        if not equals:
            rest.pop(0)
    return kept, _joined(secrets)


def _joined(secrets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A key may be given several times; of other flags the last one counts, as on the command line."""
    keys = secrets.get(API_KEY, ())
    if any("," in key for key in keys):
        raise ConfigurationError(
            f"--api-key holds a comma, which separates keys in {variable_of(API_KEY)}: take a key without one"
        )
    values = {flag: ",".join(given) if flag == API_KEY else given[-1] for flag, given in secrets.items()}
    return {variable_of(flag): value for flag, value in values.items()}


def redacted(text: str) -> str:
    """The text with stars in the place of what looks like a secret."""
    for secret in _SECRETS:
        text = secret.sub("***", text)
    return text


class DiscreetParser(CommandParser):
    """Repeats no secret in its errors, and takes no shortened flags: only whole ones are known to hold secrets."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """See `CommandParser.error`."""
        super().error(redacted(message))
