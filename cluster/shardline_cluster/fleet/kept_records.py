"""Versioned records with their keeper: read, remembered, put back into a store that forgot them, and changed."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from shardline_cluster.errors import ChangedMeanwhileError
from shardline_cluster.fleet.remembered_records import RememberedRecords
from shardline_cluster.fleet.versioned_records import RecordStore, Versioned, next_revision
from shardline_cluster.processes.wall_clock import wall_clock_ms

T = TypeVar("T")

TRIES = 5  # of a change that others get ahead of


class KeptRecords(Generic[T]):
    """What everybody who acts on records holds: routers, the controller, `serve`. Belongs to one event loop."""

    def __init__(self, store: RecordStore[T], *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        """Knows nothing before the first `refresh`.

        Args:
            store: where they lie; closed by `close`.
            now_ms: milliseconds since 1970.
        """
        self._store = store
        self._now_ms = now_ms
        self._remembered: RememberedRecords[T] = RememberedRecords()

    @property
    def records(self) -> Mapping[str, Versioned[T]]:
        """As of the last refresh or change, deleted ones too."""
        return self._remembered.records

    @property
    def values(self) -> Mapping[str, T]:
        """As of the last refresh or change, by name."""
        return self._remembered.values

    async def refresh(self) -> None:
        """Reads everything, and puts back what the store lacks.

        Raises:
            QueueUnavailableError: the store did not answer.
            ConfigurationError: a record cannot be read; what is known stays.
        """
        lacking = self._remembered.merge(await self._store.all(), now_ms=self._now_ms())
        for name, record in lacking.items():
            self._remembered.learn(name, await self._store.put(name, record))

    async def change(self, name: str, decide: Callable[[T | None], T | None]) -> T | None:
        """Changes one record and returns what it is then; None: it is deleted, or never was.

        Args:
            name: of the record.
            decide: from what it is to what it is to be. Asked again where somebody else's change came first; what it
                raises ends the change.

        Raises:
            ChangedMeanwhileError: others got ahead again and again.
            QueueUnavailableError: the store did not answer; the change may have been made.
        """
        await self.refresh()
        for _ in range(TRIES):
            before = self.records.get(name, Versioned(0, None))
            wanted = decide(before.value)
            if wanted == before.value:
                return wanted
            record = Versioned(next_revision(before.revision, self._now_ms()), wanted)
            stands = await self._store.put(name, record, known=before.revision)
            self._remembered.learn(name, stands)
            if stands == record:
                return wanted
        raise ChangedMeanwhileError(
            f"{name!r} was changed by others {TRIES} times while this change was made: look at it, then try again"
        )

    async def close(self) -> None:
        """Closes the store."""
        await self._store.close()
