"""The server of which the lanes in memory live: identity, clock, outage, snapshot, rollback and subscriptions."""

import asyncio
import pickle
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.processes.wall_clock import wall_clock_ms
from shardline_cluster.queue.memory_lane import MemoryLane
from shardline_cluster.queue.published import QueueMessage, Subscribed
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.terms import QueueTerms

T = TypeVar("T")


class MemoryServer:
    """A stand-in for a Redis server that can be made to fail in every way in which one fails.

    All queues of one server belong to one event loop.
    """

    def __init__(self, terms: QueueTerms | None = None, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self.terms = terms or QueueTerms()
        self._now_ms = now_ms
        self._identity = uuid.uuid4().hex
        self._lanes: dict[str, MemoryLane] = {}
        self._subscriptions: dict[tuple[str, str], list[asyncio.Queue[QueueMessage]]] = {}
        self._is_down = False
        self._replies_to_lose = 0
        self._messages_to_lose = 0

    @property
    def identity(self) -> str:
        """What a Redis server tells as its run id."""
        return self._identity

    async def counted_lanes(self) -> tuple[str, ...]:
        """Lanes in which usage was counted, in order."""
        return tuple(sorted(name for name, lane in self._lanes.items() if lane.usage))

    def run(self, name: str, script: Callable[[MemoryLane], T]) -> Reply[T]:
        """Runs a script on a lane and tells its answer.

        Raises:
            QueueUnavailableError: the server is down, or the reply was to be lost (then the script has run).
        """
        if self._is_down:
            raise QueueUnavailableError("the queue in memory is down: send the same call again")
        lane = self._lanes.setdefault(name, MemoryLane(self.terms))
        lane.begin(self.identity, self._now_ms())
        value = script(lane)
        self._deliver(name, lane)
        if self._replies_to_lose:
            self._replies_to_lose -= 1
            raise QueueUnavailableError("the reply of the queue in memory was lost: send the same call again")
        return Reply(self.identity, lane.in_hold, lane.now_ms, value)

    # --- failing -------------------------------------------------------------------------------------------------

    def go_down(self) -> None:
        """Every call fails, every message is lost, until `come_up`."""
        self._is_down = True

    def come_up(self) -> None:
        """Ends an outage; subscriptions are confirmed anew."""
        self._is_down = False
        self._confirm_all()

    def lose_replies(self, number: int = 1) -> None:
        """The next calls run, but their callers do not learn it."""
        self._replies_to_lose += number

    def lose_messages(self, number: int = 1) -> None:
        """The next published messages reach nobody."""
        self._messages_to_lose += number

    def snapshot(self) -> bytes:
        """All lanes as they are now."""
        return pickle.dumps(self._lanes)

    def rollback(self, snapshot: bytes | None = None) -> str:
        """Another server takes over that knows only `snapshot` (None: nothing); returns its identity.

        What was published before may still be read after it.
        """
        self._lanes = {} if snapshot is None else pickle.loads(snapshot)
        self._identity = uuid.uuid4().hex
        if not self._is_down:
            self._confirm_all()
        return self.identity

    # --- messages ------------------------------------------------------------------------------------------------

    async def messages(self, lane: str, incarnation: str) -> AsyncIterator[QueueMessage]:
        """A subscription, for as long as it is iterated."""
        queue: asyncio.Queue[QueueMessage] = asyncio.Queue()
        subscribers = self._subscriptions.setdefault((lane, incarnation), [])
        subscribers.append(queue)
        if not self._is_down:
            queue.put_nowait(Subscribed())
        try:
            while True:
                yield await queue.get()
        finally:
            subscribers.remove(queue)

    def _deliver(self, name: str, lane: MemoryLane) -> None:
        for incarnation, message in lane.outbox:
            if self._messages_to_lose:
                self._messages_to_lose -= 1
                continue
            for queue in self._subscriptions.get((name, incarnation), []):
                queue.put_nowait(message)

    def _confirm_all(self) -> None:
        for queues in self._subscriptions.values():
            for queue in queues:
                queue.put_nowait(Subscribed())
