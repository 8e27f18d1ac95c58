"""The places that a deployment's replicas fill: one name each, which tells lane and index."""

from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment


@dataclass(frozen=True, slots=True, order=True)
class ReplicaPlace:
    """Where a replica belongs. Another version of a model has another lane, and so other places."""

    lane: str
    index: int

    @property
    def name(self) -> str:
        """`LANE-INDEX`, such as `smollm2-135m-5c1f03a2-0`."""
        return f"{self.lane}-{self.index}"

    @classmethod
    def of(cls, name: str) -> "ReplicaPlace":
        """The place that bears this name.

        Raises:
            ConfigurationError: no place is named so.
        """
        lane, dash, index = name.rpartition("-")
        if not (lane and dash and index.isdecimal()):
            raise ConfigurationError(f"{name!r} is no replica's name: it must be LANE-INDEX")
        return cls(lane, int(index))


def places_of(deployment: Deployment) -> tuple[ReplicaPlace, ...]:
    """All places that a deployment wants filled, lowest index first."""
    return tuple(ReplicaPlace(deployment.lane, index) for index in range(deployment.num_replicas))
