"""Turns the controller's memory into the report that people read. Pure."""

from collections.abc import Iterable

from shardline_cluster.controller.fleet_history import FleetHistory, ReplicaLife
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
        reason=life.reason or past.reason,
    )
