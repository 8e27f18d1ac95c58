"""Announced exporters in memory: for tests and one-process experiments."""

import time
from collections.abc import Callable

from shardline_cluster.fleet.exporters import ANNOUNCED_S, Exporter, in_order


class MemoryExporterList:
    """An `ExporterList` that forgets with its process."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until: dict[Exporter, float] = {}

    async def announce(self, exporter: Exporter, *, for_s: float = ANNOUNCED_S) -> None:
        """See ExporterList."""
        self._until[exporter] = self._clock() + for_s

    async def withdraw(self, exporter: Exporter) -> None:
        """See ExporterList."""
        self._until.pop(exporter, None)

    async def all(self) -> tuple[Exporter, ...]:
        """See ExporterList."""
        return in_order(exporter for exporter, until in self._until.items() if until > self._clock())

    async def close(self) -> None:
        """Nothing to close."""
