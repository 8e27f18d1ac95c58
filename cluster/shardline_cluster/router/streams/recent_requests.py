"""What a router remembers of requests that nobody reads here any more, for a server that may have forgotten them.

A memory ages only while the router is answered, and always by the same server: an outage says nothing about what the
server will have kept when it comes back, and a new identity begins every term anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardline_cluster.queue.records import RequestEnd, RequestInfo, SequenceLog


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """A request as it was last seen here."""

    info: RequestInfo
    logs: tuple[SequenceLog, ...]
    end: RequestEnd | None


class RecentRequests:
    """Requests that were submitted, streamed, detached, cancelled or seen to end lately."""

    def __init__(self, *, lately_ms: int, longest_pause_ms: int) -> None:
        """`longest_pause_ms`: a longer pause between two answers is an outage and counts as this much."""
        self._lately_ms = lately_ms
        self._longest_pause_ms = longest_pause_ms
        self._age_ms = 0.0  # a clock that stands while nobody answers
        self._answered_ms: float | None = None
        self._remembered: dict[str, tuple[RecentRequest, float]] = {}  # oldest first

    def __iter__(self) -> Iterator[RecentRequest]:
        return iter([request for request, _ in self._remembered.values()])

    def __len__(self) -> int:
        return len(self._remembered)

    def get(self, request_id: str) -> RecentRequest | None:
        """What is remembered of a request."""
        found = self._remembered.get(request_id)
        return found[0] if found else None

    def remember(self, info: RequestInfo, logs: Sequence[SequenceLog], end: RequestEnd | None) -> None:
        """Remembers a request from now on, in place of what was known of it."""
        self.drop(info.id)
        self._remembered[info.id] = (RecentRequest(info, tuple(logs), end), self._age_ms)

    def drop(self, request_id: str) -> None:
        """Forgets a request on demand."""
        self._remembered.pop(request_id, None)

    def answered(self, now_ms: float, *, new_identity: bool) -> None:
        """The server has answered: time counts up to now, or begins anew where it is another server."""
        if self._answered_ms is not None:
            self._age_ms += min(max(0.0, now_ms - self._answered_ms), self._longest_pause_ms)
        self._answered_ms = now_ms
        if new_identity:
            self._remembered = {i: (request, self._age_ms) for i, (request, _) in self._remembered.items()}
        self._drop_old()

    def _drop_old(self) -> None:
        old = self._age_ms - self._lately_ms
        while self._remembered:
            request_id, (_, since) = next(iter(self._remembered.items()))
            if since >= old:
                return
            del self._remembered[request_id]
