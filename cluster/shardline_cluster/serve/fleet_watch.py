"""Tells in words what changes in the fleet, from one report to the next."""

from collections.abc import Iterator

from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_workers.parallel.parallel_plan import ParallelPlan

FAILURES_BEFORE_GIVING_UP = 3  # of a place that has never been ready, at the first start only
ONE_RANK = str(ParallelPlan())

_NEWS = {
    ReplicaState.PENDING: "waiting for resources",
    ReplicaState.STARTING: "starting",
    ReplicaState.LOADING: "loading the model",
    ReplicaState.WARMING: "warming up",
    ReplicaState.READY: "ready",
    ReplicaState.DRAINING: "draining",
}


class FleetNews:
    """Remembers the last report, and tells what is new in the next one."""

    def __init__(self) -> None:
        self._seen: dict[str, DeploymentReport] = {}  # by lane

    def of(self, fleet: FleetReport) -> list[str]:
        """Lines for people: lanes that are served no more, then each lane's changes."""
        now = {report.lane: report for report in fleet.deployments}
        lines = [
            f"{report.name}: the lane {lane} is served no longer"
            for lane, report in self._seen.items()
            if lane not in now
        ]
        for lane, report in now.items():
            lines.extend(changes(self._seen.get(lane), report))
        self._seen = now
        return lines


def changes(before: DeploymentReport | None, after: DeploymentReport) -> Iterator[str]:
    """A line for each replica whose state is another one, or that has failed once more."""
    known = {place.place: place for place in before.places} if before is not None else {}
    for place in after.places:
        line = _change(known.get(place.place), place)
        if line:
            yield line


def is_up(report: DeploymentReport) -> bool:
    """Whether everything that can run is ready: at least one replica, where any is wanted at all."""
    settled = all(place.state is ReplicaState.READY or _waits_for_resources(place) for place in report.places)
    return settled and (report.num_ready > 0 or not report.places)


def hopeless(report: DeploymentReport) -> str:
    """Why none of the replicas will ever come up, as far as one can tell; empty where there is hope.

    Only sensible before the first replica was ready: afterwards the controller tries for ever.
    """
    tried = report.places and all(place.failures >= FAILURES_BEFORE_GIVING_UP for place in report.places)
    return report.places[0].reason if tried else ""


def _change(before: PlaceReport | None, after: PlaceReport) -> str:
    if after.failures and (before is None or after.failures > before.failures):
        often = f" ({after.failures} times in a row)" if after.failures > 1 else ""
        pause = f"; next try in {after.next_start_s:.0f} s" if after.next_start_s else ""
        return f"{after.place} failed{often}: {after.reason}{pause}"
    if not after.incarnation and _waits_for_resources(after):
        return f"{after.place}: {after.reason}" if before is None or before.reason != after.reason else ""
    if before is not None and (before.state, before.incarnation) == (after.state, after.incarnation):
        return ""
    news = _NEWS.get(after.state) if after.incarnation else None
    return f"{after.place}: {news}{_shape(after)}" if news else ""


def _shape(place: PlaceReport) -> str:
    """Of a replica that is ready and has several ranks."""
    return f" as {place.shape}" if place.state is ReplicaState.READY and place.shape not in ("", ONE_RANK) else ""


def _waits_for_resources(place: PlaceReport) -> bool:
    """In the launcher, or before it, where no node has room for all of its ranks."""
    return place.state is ReplicaState.PENDING and bool(place.incarnation or place.reason)
