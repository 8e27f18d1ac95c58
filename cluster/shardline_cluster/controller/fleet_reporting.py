"""Turns the controller's memory into the report that people read. Pure."""

from collections.abc import Iterable

from shardline_cluster.controller.fleet_history import FleetHistory, GangWait, ReplicaLife
from shardline_cluster.controller.replica_place import places_of
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.replica_state import ReplicaState


def report_on(
    desired: Iterable[Deployment], history: FleetHistory, *, cluster: str, controller: str, written_at: float
) -> FleetReport:
    """The fleet of a cluster as the last round left it."""
    living = {life.place: (incarnation, life) for incarnation, life in history.lives.items() if life.alive}
    deployments = tuple(
        DeploymentReport(
            name=deployment.name,
            lane=deployment.lane,
            places=tuple(_place(place.name, living.get(place.name), history) for place in places_of(deployment)),
        )
        for deployment in desired
    )
    return FleetReport(cluster=cluster, controller=controller, written_at=written_at, deployments=deployments)


def _place(name: str, living: tuple[str, ReplicaLife] | None, history: FleetHistory) -> PlaceReport:
    past = history.place(name)
    wait = history.gangs.get(name, GangWait())
    if living is None and wait.missing_since_s is not None:
        return PlaceReport(place=name, failures=past.failures, reason=_waiting(past.reason, wait))
    if living is None:
        state = ReplicaState.FAILED if past.failures else ReplicaState.PENDING
        wait_s = max(0.0, past.not_before_s - history.now_s)
        return PlaceReport(place=name, state=state, failures=past.failures, reason=past.reason, next_start_s=wait_s)
    incarnation, life = living
    return PlaceReport(
        place=name,
        incarnation=incarnation,
        state=life.state,
        failures=past.failures,
        reason=life.reason or (life.gang.note if life.gang else "") or past.reason,
        shape=str(life.gang.plan) if life.gang else "",
    )


def _waiting(failure: str, wait: GangWait) -> str:
    """Why it has not started yet, and what had ended it before."""
    return f"{failure}; waits for room: {wait.reason}" if failure else f"waits for room: {wait.reason}"
