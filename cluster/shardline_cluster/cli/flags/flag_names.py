"""Routers name a wrong field of the protocol; whoever typed a flag is told the flag."""

import re
from collections.abc import Collection

_FIELD = re.compile(r"(?P<sampling>sampling\.)?(?P<name>[a-z][a-z_]*)(?P<place>\[[^\]]*\])? ")
_PLAIN_FIELDS = frozenset({"model", "priority", "timeout"})  # flags though no part of the sampling


def in_flags(message: str, names: Collection[str]) -> str:
    """The same message with the flag in the place of a field at its beginning, where there is such a flag.

    `names` are those of the command's arguments, as argparse keeps them.
    """
    field = _FIELD.match(message)
    if field is None or not (field["sampling"] or field["name"] in _PLAIN_FIELDS):
        return message
    for name in (field["name"], field["name"].removesuffix("s")):  # --bad-word, once for each of the bad_words
        if name in names:
            return f"--{name.replace('_', '-')}{message[field.end('name') :]}"
    return message
