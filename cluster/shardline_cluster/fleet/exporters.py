"""Where the metrics of every process can be had: each announces itself, the controller tells all of them to Prometheus.

An announcement runs out unless it is repeated, so that one of a process that was killed goes by itself.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from shardline_cluster.errors import ShardlineError

ANNOUNCED_S = 30.0  # how long an announcement counts; a scraper sees a killed process as down for as long
REPEAT_S = 10.0
WITHDRAW_S = 0.5  # a process that ends waits no longer; then its announcement runs out

log = logging.getLogger(__name__)


class ExporterKind(Enum):
    """Which kind of process exports."""

    ROUTER = "router"
    REPLICA = "replica"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """One process's exporter."""

    kind: ExporterKind
    address: str  # host:port


class ExporterList(Protocol):
    """Announced exporters. All methods raise QueueUnavailableError where no answer came."""

    async def announce(self, exporter: Exporter, *, for_s: float = ANNOUNCED_S) -> None:
        """Adds an exporter, or lets it count for longer."""
        ...

    async def withdraw(self, exporter: Exporter) -> None:
        """Takes an exporter off; an unknown one is none the less gone."""
        ...

    async def all(self) -> tuple[Exporter, ...]:
        """Those whose announcement has not run out, in order of kind and address."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...


@asynccontextmanager
async def announced(exporter: Exporter, exporters: ExporterList) -> AsyncIterator[None]:
    """Announces an exporter for as long as the block lasts, and closes the list. A queue that is away is no trouble."""
    repeating = asyncio.create_task(_repeat(exporter, exporters))
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.gather(repeating, return_exceptions=True)
        with suppress(ShardlineError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_S):
                await exporters.withdraw(exporter)
        await exporters.close()


async def _repeat(exporter: Exporter, exporters: ExporterList) -> None:
    while True:
        try:
            await exporters.announce(exporter)
            pause_s = REPEAT_S
        except ShardlineError as error:
            log.debug("the exporter could not be announced: %s", error)
            pause_s = 1.0
        await asyncio.sleep(pause_s)


def scrape_targets(exporters: Iterable[Exporter]) -> str:
    """The answer of Prometheus's HTTP service discovery: a group for each kind, which the label `process` tells."""
    by_kind: dict[str, list[str]] = {}
    for exporter in exporters:
        by_kind.setdefault(exporter.kind.value, []).append(exporter.address)
    return json.dumps([{"targets": by_kind[kind], "labels": {"process": kind}} for kind in sorted(by_kind)])


def in_order(exporters: Iterable[Exporter]) -> tuple[Exporter, ...]:
    """By kind and address."""
    return tuple(sorted(exporters, key=lambda exporter: (exporter.kind.value, exporter.address)))
