"""One lane as the controller sees it: its members, its work, its bounds, and the news that a member has died."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_state import ReplicaStatus
from shardline_cluster.queue.answers import LaneView
from shardline_cluster.queue.calls import DeadMember, LaneBounds
from shardline_cluster.queue.request_queue import RequestQueue


@dataclass(frozen=True, slots=True)
class LaneSight:
    """A lane at one instant."""

    statuses: Mapping[str, ReplicaStatus]  # what its leaders say of themselves, by incarnation
    may_have_work: bool  # requests wait or run, or its server may have forgotten some


class LaneWatch:
    """Keeps a lane configured, a lane of a forgetful server too. All methods raise QueueUnavailableError."""

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue
        self._configured: tuple[str, LaneBounds] | None = None  # by which server, with what
        self.view: LaneView | None = None  # as last seen

    async def look(self, bounds: LaneBounds | None) -> LaneSight:
        """How it stands. `bounds` None: nobody deploys to it any more."""
        reply = await self._queue.view()
        self.view = reply.value
        if bounds is not None and self._configured != (reply.identity, bounds):
            configured = await self._queue.configure(bounds)
            self._configured = (configured.identity, bounds)
        view = reply.value
        num_unfinished = view.waiting_requests + view.handed_back_requests + view.running_requests
        return LaneSight(_statuses(view), may_have_work=reply.in_hold or num_unfinished > 0)

    async def report_dead(self, dead: Sequence[DeadMember]) -> bool:
        """Tells which leaders are gone. False: the lane is in a hold, in which the news counts for nothing yet."""
        reply = await self._queue.sweep(None, dead)
        return not reply.in_hold

    async def close(self) -> None:
        """Closes the lane's connections."""
        await self._queue.close()


def _statuses(view: LaneView) -> dict[str, ReplicaStatus]:
    statuses = {}
    for leader in view.leaders:
        try:
            statuses[leader.incarnation] = from_json(ReplicaStatus, leader.status)
        except ConfigurationError:  # another version's replica: it is there, but what it says is not for us
            continue
    return statuses
