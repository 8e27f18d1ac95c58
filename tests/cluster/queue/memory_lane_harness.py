"""The queue in memory under the shared tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.published import QueueMessage, Subscribed
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.queue.terms import QueueTerms

START_MS = 1_700_000_000_000  # as large as a real clock, so that arithmetic is tried at its real size


class MemoryLaneHarness:
    """One `MemoryServer` on a manual clock."""

    def __init__(self, terms: QueueTerms | None = None) -> None:
        self.terms = terms or QueueTerms()
        self._clock_ms = START_MS
        self._read: dict[str, list[QueueMessage]] = {}
        self._readers: list[asyncio.Task[None]] = []
        self.server = MemoryServer(self.terms, now_ms=lambda: self._clock_ms)

    def queue(self) -> RequestQueue:
        return MemoryRequestQueue(self.server, "lane")

    async def reset(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._readers = []
        self.server.rollback(None)
        self.server.come_up()

    async def now_ms(self) -> int:
        return self._clock_ms

    async def advance(self, ms: int) -> None:
        self._clock_ms += ms

    async def identity(self) -> str:
        return self.server.identity

    async def snapshot(self) -> object:
        return self.server.snapshot()

    async def rollback(self, snapshot: object | None) -> str:
        assert snapshot is None or isinstance(snapshot, bytes), "a snapshot of this harness"
        return self.server.rollback(snapshot)

    async def set_outage(self, down: bool) -> None:
        if down:
            self.server.go_down()
        else:
            self.server.come_up()

    async def watch(self, incarnation: str) -> None:
        messages = self.queue().listen(incarnation)
        first = await anext(messages)
        assert isinstance(first, Subscribed), "a subscription begins with its confirmation"
        self._read[incarnation] = []
        self._readers.append(asyncio.create_task(self._pump(messages, self._read[incarnation])))

    async def _pump(self, messages: AsyncIterator[QueueMessage], into: list[QueueMessage]) -> None:
        async for message in messages:
            if not isinstance(message, Subscribed):
                into.append(message)  # noqa: PERF401 — a comprehension would deliver only at the end

    async def published(self, incarnation: str) -> list[QueueMessage]:
        await asyncio.sleep(0)  # the reader's turn
        messages = list(self._read[incarnation])
        self._read[incarnation].clear()
        return messages

    async def close(self) -> None:
        await self.reset()


async def open_memory_harness(_request: pytest.FixtureRequest) -> MemoryLaneHarness:
    """The factory that the shared fixture uses."""
    return MemoryLaneHarness()
