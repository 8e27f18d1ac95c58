"""From what is seen of a fleet that comes up to the phases of its start. Pure but for the clock in `StartTimes`."""

from collections.abc import Mapping, Sequence

from shardline_cluster.fleet.fleet_report import DeploymentReport
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.serve.fleet_watch import is_up
from shardline_cluster.serve.start_times import StartPhase, StartTimes

_HAS_SPOKEN = (ReplicaState.LOADING, ReplicaState.WARMING, ReplicaState.READY)
_SHORTEST_HOLD_S = 0.05  # less is the pause between two looks


class StartWatch:
    """Sees the fleet again and again until it is ready, and adds to a start's times what others have measured."""

    def __init__(self, times: StartTimes, *, controller_began_s: float) -> None:
        """Begins when the controller's process did, in seconds of `times`."""
        self._times = times
        self._controller_began_s = controller_began_s
        self._reported_s: float | None = None  # when the controller first spoke
        self._loading_s: float | None = None  # when a replica first spoke
        self._up_s: float | None = None

    def saw(self, report: DeploymentReport, statuses: Sequence[ReplicaStatus]) -> None:
        """What the controller reports, and what replicas say of themselves."""
        if self._reported_s is None:
            self._times.ended("controller", began_s=self._controller_began_s)
            self._reported_s = self._times.now_s
        if self._loading_s is None and any(place.state in _HAS_SPOKEN for place in report.places):
            self._times.ended("replica's process", began_s=self._reported_s)
            self._loading_s = self._times.now_s
        if self._up_s is None and is_up(report):
            self._up_s = self._times.now_s
            self._add_slowest(statuses)

    def ready(self) -> None:
        """The start is over. What came after the last replica was the hold of a queue that may have forgotten."""
        if self._up_s is not None and self._times.now_s - self._up_s > _SHORTEST_HOLD_S:
            self._times.ended("hold of the queue", began_s=self._up_s)

    def _add_slowest(self, statuses: Sequence[ReplicaStatus]) -> None:
        """The phases of the replica that took longest: replicas load side by side."""
        told = [status.load_s for status in statuses if status.load_s]
        if told:
            self._add(max(told, key=lambda load_s: sum(load_s.values())))

    def _add(self, load_s: Mapping[str, float]) -> None:
        began_s = self._loading_s if self._loading_s is not None else self._times.now_s
        for name, took_s in load_s.items():
            self._times.add(StartPhase(f"replica's {name}", began_s, took_s))
            began_s += took_s
