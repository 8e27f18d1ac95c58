"""The short memory of ends: what the server may yet forget, and its leader must then tell again.

An end's term runs only while the same server answers. It is looked at with each answer, so an outage lets nothing be
forgotten, and a new identity begins every term anew.
"""

from dataclasses import dataclass

from shardline_cluster.queue.records import RequestEnd, RequestInfo, SequenceLog


@dataclass(slots=True)
class RecentEnd:
    """An end as it was told to this leader, with every id up to it."""

    info: RequestInfo
    logs: tuple[SequenceLog, ...]
    end: RequestEnd
    since: float  # instant from which its term counts, in seconds


class RecentEnds:
    """Ends of the last `lately_s` seconds, as far as those were seen to pass under one server."""

    def __init__(self, *, lately_s: float) -> None:
        self._lately_s = lately_s
        self._ends: dict[str, RecentEnd] = {}

    def remember(self, info: RequestInfo, logs: tuple[SequenceLog, ...], end: RequestEnd, *, now: float) -> None:
        """Notes an end; a later end of the same id replaces an earlier one."""
        self._ends.pop(info.id, None)
        self._ends[info.id] = RecentEnd(info, logs, end, now)

    def get(self, request_id: str) -> RecentEnd | None:
        """The end of a request, if it is remembered."""
        return self._ends.get(request_id)

    def all(self) -> tuple[RecentEnd, ...]:
        """Everything that is remembered, oldest first."""
        return tuple(self._ends.values())

    def answered_by_same_server(self, now: float) -> None:
        """Forgets the ends whose term is over: the server that answered has them safe by now."""
        for request_id in [i for i, e in self._ends.items() if now - e.since > self._lately_s]:
            del self._ends[request_id]

    def answered_by_new_server(self, now: float) -> None:
        """Begins all terms anew."""
        for end in self._ends.values():
            end.since = now
