"""Records that outlive a forgetful server: deployments, API keys and what else operators decide.

Each record carries a revision, and deleting one writes an empty record instead of removing it. So whoever remembers a
record can tell a deletion from a server that forgot its last writes (or all of them), and puts back what it lacks;
the higher revision wins, so a revoked key stays revoked. Revisions are milliseconds since 1970, raised above the one
before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A record as of one revision."""

    revision: int
    value: T | None  # None: it was deleted


def next_revision(before: int, now_ms: int) -> int:
    """The revision of a change to a record of revision `before` (0: there was none)."""
    return max(before + 1, now_ms)


class RecordStore(Protocol[T]):
    """Records of one kind by name. All methods raise QueueUnavailableError where no answer came."""

    async def put(self, name: str, record: Versioned[T], *, known: int | None = None) -> Versioned[T]:
        """Writes a record if its revision is higher than that of what is there, and returns what is there now.

        With `known`, the revision that the writer has read, only if nobody has written a higher one since. One atomic
        step; sending it again changes nothing.
        """
        ...

    async def all(self) -> Mapping[str, Versioned[T]]:
        """Every record, deleted ones too."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...
