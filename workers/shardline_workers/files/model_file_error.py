"""The one error of this folder: a model that cannot be found, fetched or understood."""

from pathlib import Path
from typing import Self


class ModelFileError(ValueError):
    """A model file or source is not what it should be; its text says what, the value, the bound and the remedy."""

    @classmethod
    def about(cls, path: Path | str, what: str, *, value: object, bound: str, remedy: str) -> Self:
        """Builds the text in the order in which a reader needs it: where, what, value, bound, remedy."""
        return cls(f"{path}: {what}: found {_shown(value)}, expected {bound}. {remedy}")


def _shown(value: object) -> str:
    """A value from a hostile file, short enough for a log line."""
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:397]}..."
