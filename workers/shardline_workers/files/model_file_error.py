"""The one error of this folder: a model that cannot be found, fetched or understood."""

import reprlib
from pathlib import Path
from typing import Self

_MAX_WHAT_CHARACTERS = 200
_MAX_VALUE_CHARACTERS = 400
_MAX_SHOWN_ENTRIES = 20  # of a list, a mapping …


class ModelFileError(ValueError):
    """A model file or source is not what it should be; its text says what, the value, the bound and the remedy."""

    @classmethod
    def about(cls, path: Path | str, what: str, *, value: object, bound: str, remedy: str) -> Self:
        """Builds the text in the order in which a reader needs it: where, what, value, bound, remedy.

        `what` and `value` may quote a hostile file at any length: the text is one short printable line all the same.
        """
        what = _cut(_printable(what), _MAX_WHAT_CHARACTERS)
        return cls(f"{_printable(str(path))}: {what}: found {_shown(value)}, expected {bound}. {remedy}")

    @classmethod
    def because(cls, path: Path | str, reason: str, *, remedy: str) -> Self:
        """Builds the text where a check has said in one sentence what is wrong, the value and the bound.

        `reason` may quote a hostile file, as `about` says.
        """
        return cls(f"{_printable(str(path))}: {_cut(_printable(reason), _MAX_VALUE_CHARACTERS)}. {remedy}")


def _printable(text: str) -> str:
    """Names of keys, tensors and shards may hold line breaks and what terminals take for commands."""
    return text if text.isprintable() else repr(text)[1:-1]


def _shown(value: object) -> str:
    """Never `repr` as a whole: that of millions of elements takes seconds, that of deep nesting fails."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = shortened.maxlong = _MAX_VALUE_CHARACTERS
    shortened.maxlist = shortened.maxtuple = shortened.maxdict = _MAX_SHOWN_ENTRIES
    return _cut(shortened.repr(value), _MAX_VALUE_CHARACTERS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
