"""What the shared tests need of a queue, besides the queue: its clock, its failures, and a way to begin anew.

Every queue brings one harness; the tests are the same for all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from shardline_cluster.queue.published import QueueMessage
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.queue.terms import QueueTerms


class LaneHarness(Protocol):
    """One lane of one server, on a clock that only the test moves."""

    @property
    def terms(self) -> QueueTerms:
        """The terms of the lane."""
        ...

    def queue(self) -> RequestQueue:
        """A queue on the lane. Two of them are two connections to the same lane."""
        ...

    async def reset(self) -> None:
        """Begins anew, cheaply: an empty server of a new identity, no outage, nobody watching, the clock as it is.

        Queues that were given before stay on it.
        """
        ...

    async def now_ms(self) -> int:
        """The server's clock."""
        ...

    async def advance(self, ms: int) -> None:
        """Moves the server's clock; a negative number is a promoted server whose clock is behind."""
        ...

    async def identity(self) -> str:
        """The server's identity, without running a script."""
        ...

    async def snapshot(self) -> object:
        """The whole lane as it is now."""
        ...

    async def rollback(self, snapshot: object | None) -> str:
        """Another server takes over that knows only `snapshot` (None: nothing); returns its identity."""
        ...

    async def set_outage(self, down: bool) -> None:
        """While down, every call raises QueueUnavailableError and every message is lost."""
        ...

    async def watch(self, incarnation: str) -> None:
        """Subscribes to what is published for a leader or router; confirmed before it returns."""
        ...

    async def published(self, incarnation: str) -> list[QueueMessage]:
        """Every message for a watched incarnation since it was last asked, in order, without `Subscribed`.

        Exact: what a script published before its answer came is in the list.
        """
        ...

    async def close(self) -> None:
        """Gives back what the harness holds."""
        ...


@dataclass(frozen=True, slots=True)
class HarnessKind:
    """A harness by name, and how to make one inside the event loop that will use it."""

    name: str
    open: Callable[[pytest.FixtureRequest], Awaitable[LaneHarness]]  # the request gives access to fixtures: servers
    marks: tuple[pytest.MarkDecorator, ...] = ()
