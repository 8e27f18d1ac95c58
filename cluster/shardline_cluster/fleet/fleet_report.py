"""What a controller tells people about its fleet: places, states, and why something is not running.

Replicas speak for themselves in their lanes; a replica that died, or never came up, cannot. This report says it. There
is one for each cluster, so that several clusters on one server do not write over each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from shardline_cluster.fleet.deployment import DEFAULT_CLUSTER, Deployment
from shardline_cluster.fleet.replica_state import ReplicaState


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceReport:
    """One place and the replica in it."""

    place: str
    incarnation: str = ""  # empty while no process fills the place
    state: ReplicaState = ReplicaState.PENDING
    failures: int = 0  # in a row
    reason: str = ""  # of the last failure
    next_start_s: float | None = None  # pause until the next try; None where nothing waits
    shape: str = ""  # of its replica; empty while there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReport:
    """One lane of a desired deployment and its places, lowest index first."""

    name: str
    lane: str
    places: tuple[PlaceReport, ...]

    @property
    def num_ready(self) -> int:
        """Replicas that serve now."""
        return sum(place.state is ReplicaState.READY for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """The whole fleet of one cluster at one instant."""

    controller: str  # the controller's incarnation
    written_at: float  # seconds since 1970, of the controller's host
    deployments: tuple[DeploymentReport, ...] = ()  # a former lane that is still served has a report of its own
    cluster: str = DEFAULT_CLUSTER

    def of_lane(self, lane: str) -> DeploymentReport | None:
        """The report on one lane; None where the controller has not seen it yet."""
        return next((report for report in self.deployments if report.lane == lane), None)


class FleetReportStore(Protocol):
    """Where the last reports lie. All methods raise QueueUnavailableError where no answer came."""

    async def put(self, report: FleetReport) -> None:
        """Replaces the report of its cluster."""
        ...

    async def all(self) -> Mapping[str, FleetReport]:
        """The last report of each cluster, by its name."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...


def report_on_lane(reports: Mapping[str, FleetReport], deployment: Deployment) -> DeploymentReport | None:
    """What its cluster's controller says of a deployment's lane; None where it has said nothing yet."""
    report = reports.get(deployment.cluster)
    return report.of_lane(deployment.lane) if report is not None else None
