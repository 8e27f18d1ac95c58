"""Versioned records as one who acts on them knows them: what was read, merged with what is remembered. Pure.

A server that forgets its last writes, or all of them, forgets records too. Whoever remembers one puts it back, so that
nothing is stopped, and nobody is let in, because of a server's bad memory.
"""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from shardline_cluster.fleet.versioned_records import Versioned

T = TypeVar("T")

TOMBSTONE_KEPT_MS = 7 * 24 * 3_600_000  # by then nobody lives who remembers the record and not its deletion


class RememberedRecords(Generic[T]):
    """The highest revision of each record that was ever seen. Belongs to one event loop."""

    def __init__(self) -> None:
        self._known: dict[str, Versioned[T]] = {}

    @property
    def records(self) -> Mapping[str, Versioned[T]]:
        """What is known, deleted ones too."""
        return dict(self._known)

    @property
    def values(self) -> dict[str, T]:
        """What is known and not deleted, by name."""
        return {name: record.value for name, record in self._known.items() if record.value is not None}

    def merge(self, stored: Mapping[str, Versioned[T]], *, now_ms: int) -> Mapping[str, Versioned[T]]:
        """Learns what a store says, and returns what it lacks: to be put back.

        Args:
            stored: everything that lies there.
            now_ms: since 1970; tombstones that are too old are dropped.
        """
        for name, record in stored.items():
            self.learn(name, record)
        self._known = {name: record for name, record in self._known.items() if not is_forgotten(record, now_ms)}
        return {name: record for name, record in self._known.items() if _lacks(stored.get(name), record)}

    def learn(self, name: str, record: Versioned[T]) -> None:
        """Takes one record over, unless a higher revision is known. Of equals the one that was read counts."""
        known = self._known.get(name)
        if known is None or known.revision <= record.revision:
            self._known[name] = record


def is_forgotten(record: Versioned[Any], now_ms: int) -> bool:
    """Whether this is the trace of a deletion so old that everybody drops it."""
    return record.value is None and record.revision < now_ms - TOMBSTONE_KEPT_MS


def _lacks(stored: Versioned[T] | None, known: Versioned[T]) -> bool:
    return stored is None or stored.revision < known.revision
