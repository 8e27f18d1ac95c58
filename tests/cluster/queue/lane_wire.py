"""The network between one process and the queue, in the hands of a test: every call waits until the test moves it.

A call may be executed, its reply lost, executed twice, read late, or never arrive; calls of one process overtake each
other. A process sends a call again on a new connection until it is answered, as the real shells do.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from shardline_cluster.queue.request_queue import Reply, RequestQueue


@dataclass(slots=True, eq=False)
class Call:
    """One call: `copies` are on their way to the server, `replies` on their way back."""

    kind: str
    about: str  # the request, or nothing
    send: Callable[[RequestQueue], Awaitable[Reply[Any]]]
    take: Callable[[Reply[Any]], None]
    server: str  # the server that its connection leads to
    sent_ms: int
    copies: int = 1
    replies: list[Reply[Any]] = field(default_factory=list)
    waiting: bool = True  # its process waits for an answer


@dataclass(slots=True)
class Clock:
    """Time as everybody in a test knows it."""

    now_ms: int

    @property
    def now_s(self) -> float:
        """The same in seconds."""
        return self.now_ms / 1000


@dataclass(slots=True)
class Wire:
    """All calls of one process. `server` is whom its connection leads to; that server may be gone."""

    server: str
    clock: Clock
    calls: list[Call] = field(default_factory=list)

    def send(
        self,
        kind: str,
        about: str,
        send: Callable[[RequestQueue], Awaitable[Reply[Any]]],
        take: Callable[[Reply[Any]], None],
    ) -> Call:
        """Puts a call on its way."""
        call = Call(kind, about, send, take, self.server, self.clock.now_ms)
        self.calls.append(call)
        return call

    def pending(self, kind: str, about: str | None = None) -> bool:
        """Whether such a call waits for its answer."""
        return any(c.waiting and c.kind == kind and about in (None, c.about) for c in self.calls)

    def unanswered(self) -> list[Call]:
        """Calls that wait for their answer."""
        return [c for c in self.calls if c.waiting]

    def receive(self, call: Call) -> None:
        """Lets the process read the oldest reply; only the first one that it reads counts."""
        reply = call.replies.pop(0)
        if call.waiting:
            call.waiting = False
            call.take(reply)
        self.tidy()

    def reconnect(self, server: str) -> None:
        """A new connection: replies of the old one are lost, what waits is sent again."""
        self.server = server
        self.calls = self.unanswered()
        for call in self.calls:
            call.copies, call.replies, call.server, call.sent_ms = 1, [], server, self.clock.now_ms

    def cut(self, *, keep_replies: bool) -> None:
        """The connection breaks: nothing arrives any more; what was answered may yet be read."""
        for call in self.calls:
            call.copies = 0
            if not keep_replies:
                call.replies.clear()

    def tidy(self) -> None:
        """Drops calls that can do nothing any more."""
        self.calls = [c for c in self.calls if c.waiting or c.copies]
