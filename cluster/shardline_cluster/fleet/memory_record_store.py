"""Versioned records in memory: for tests and one-process experiments."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.remembered_records import is_forgotten
from shardline_cluster.fleet.versioned_records import Versioned
from shardline_cluster.processes.wall_clock import wall_clock_ms

T = TypeVar("T")


class MemoryRecordStore(Generic[T]):
    """A `RecordStore` that forgets with its process. Share one instance to share its records."""

    def __init__(self, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        """Begins empty.

        Args:
            now_ms: milliseconds since 1970.
        """
        self.is_down = False  # True: every call fails, as with a server that is away
        self._now_ms = now_ms
        self._records: dict[str, Versioned[T]] = {}

    async def put(self, name: str, record: Versioned[T], *, known: int | None = None) -> Versioned[T]:
        """See `RecordStore`."""
        self._require_up()
        stood = self._records.get(name)
        replaceable = record.revision - 1 if known is None else min(known, record.revision - 1)
        if stood is not None and stood.revision > replaceable:
            return stood
        self._records[name] = record
        now_ms = self._now_ms()
        self._records = {n: r for n, r in self._records.items() if not is_forgotten(r, now_ms)}
        return record

    async def all(self) -> Mapping[str, Versioned[T]]:
        """See `RecordStore`."""
        self._require_up()
        return dict(self._records)

    async def close(self) -> None:
        """Nothing to close."""

    def forget(self) -> None:
        """Loses everything, as a server does that comes back without its data."""
        self._records.clear()

    def _require_up(self) -> None:
        if self.is_down:
            raise QueueUnavailableError("the records in memory are out of reach: try again")
