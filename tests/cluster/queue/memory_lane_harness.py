"""The queue in memory under the shared tests."""

from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.queue.terms import QueueTerms

START_MS = 1_700_000_000_000  # as large as a real clock, so that arithmetic is tried at its real size


class MemoryLaneHarness:
    """One `MemoryServer` on a manual clock."""

    def __init__(self, terms: QueueTerms | None = None) -> None:
        self.terms = terms or QueueTerms()
        self._clock_ms = START_MS
        self.server = self._new_server()

    def _new_server(self) -> MemoryServer:
        return MemoryServer(self.terms, now_ms=lambda: self._clock_ms)

    def queue(self) -> RequestQueue:
        return MemoryRequestQueue(self.server, "lane")

    async def reset(self) -> None:
        self.server = self._new_server()

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

    async def close(self) -> None:
        """Nothing to give back."""


async def open_memory_harness() -> MemoryLaneHarness:
    """The factory that the shared fixture uses."""
    return MemoryLaneHarness()
