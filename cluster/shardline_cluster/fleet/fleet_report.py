"""What the controller tells people about its fleet: places, states, and why something is not running.

Replicas speak for themselves in their lanes; a replica that died, or never came up, cannot. This report says it.
"""

from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReport:
    """One desired deployment and its places, lowest index first."""

    name: str
    lane: str
    places: tuple[PlaceReport, ...]

    @property
    def num_ready(self) -> int:
        """Replicas that serve now."""
        return sum(place.state is ReplicaState.READY for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """The whole fleet at one instant."""

    controller: str  # the controller's incarnation
    written_at: float  # seconds since 1970, of the controller's host
    deployments: tuple[DeploymentReport, ...] = ()

    def deployment(self, name: str) -> DeploymentReport | None:
        """The report on one deployment; None where the controller has not seen it yet."""
        return next((report for report in self.deployments if report.name == name), None)


class FleetReportStore(Protocol):
    """Where the last report lies. All methods raise QueueUnavailableError where no answer came."""

    async def put(self, report: FleetReport) -> None:
        """Replaces the report."""
        ...

    async def get(self) -> FleetReport | None:
        """The last report; None where there is none."""
        ...

    async def close(self) -> None:
        """Closes connections."""
        ...
