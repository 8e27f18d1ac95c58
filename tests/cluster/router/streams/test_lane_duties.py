"""The loops and calls of a lane, where the queue does what nobody thought of."""

import asyncio
import time
from typing import Any

import pytest

from shardline_cluster.errors import ShardlineError, ShuttingDownError
from shardline_cluster.queue.answers import Gone, OnHold, Snapshot
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.streams.token_streams import TokenStreams
from tests.cluster.router.router_bench import available
from tests.cluster.router.stepped_router import LANE

ID = LANE + "-" + "0" * 32


class _Faulty(MemoryRequestQueue):
    """Fails in a way of its own."""

    def __init__(self) -> None:
        super().__init__(MemoryServer(QueueTerms.short(), now_ms=lambda: time.time_ns() // 1_000_000), LANE)
        self.num_listened = 0

    async def attach(self, *_: Any, **__: Any) -> Reply[Snapshot | OnHold | Gone]:
        raise RuntimeError("an answer that cannot be read")

    async def listen(self, incarnation: str) -> Any:
        self.num_listened += 1
        if self.num_listened == 1:
            raise RuntimeError("a message that cannot be read")
        async for message in super().listen(incarnation):
            yield message


async def test_whoever_waits_for_an_attach_hears_of_an_unforeseen_fault(caplog: pytest.LogCaptureFixture) -> None:
    queue = _Faulty()
    streams = TokenStreams(queue, "router-1")
    streams.start()
    await available(streams)

    stream = streams.read(ID, "default")

    with pytest.raises(ShardlineError, match="failed unexpectedly"):
        async with asyncio.timeout(20):
            await stream.opened()
    await streams.close(ShuttingDownError("the test is over"))
    assert "an answer that cannot be read" in caplog.text


async def test_listening_begins_anew_after_an_unforeseen_fault(caplog: pytest.LogCaptureFixture) -> None:
    queue = _Faulty()
    streams = TokenStreams(queue, "router-1")

    streams.start()

    async with asyncio.timeout(20):
        while queue.num_listened < 2:  # noqa: ASYNC110 — nobody tells of it
            await asyncio.sleep(0.01)
    assert "a message that cannot be read" in caplog.text
    await streams.close(ShuttingDownError("the test is over"))
