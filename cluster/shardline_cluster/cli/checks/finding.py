"""What a check of this machine found, and what helps."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is; the value is how it is shown."""

    GOOD = "✓"
    DOUBTFUL = "!"  # it works, but less well than it could, or not everything does
    BROKEN = "✗"  # something would not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str  # what was looked at, in a word or two
    level: Level
    found: str
    remedy: str = ""  # empty where all is well

    def line(self) -> str:
        """The finding for people."""
        told = f"{self.level.value} {self.check}: {self.found}"
        return f"{told}\n    {self.remedy}" if self.remedy else told


def good(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check=check, level=Level.GOOD, found=found)


def doubtful(check: str, found: str, remedy: str) -> Finding:
    """It works, but."""
    return Finding(check=check, level=Level.DOUBTFUL, found=found, remedy=remedy)


def broken(check: str, found: str, remedy: str) -> Finding:
    """It would not work."""
    return Finding(check=check, level=Level.BROKEN, found=found, remedy=remedy)
