"""What is fuzzed: a reader of outside bytes, and where the bytes come from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzTarget:
    """One reader. A case ends well where `run` returns, or raises one of `documented`; anything else is a finding."""

    name: str
    make: Callable[[Random], bytes]  # the input of one case, of its own random numbers
    run: Callable[[bytes, Path], object]  # reads it; the folder is the case's own to write files into
    documented: tuple[type[Exception], ...]
