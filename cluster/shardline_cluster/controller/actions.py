"""What the reconciler can ask for: each action says why, for the log and for people."""

from dataclasses import dataclass, field

from shardline_cluster.controller.replica_place import ReplicaPlace
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.gang import Gang


@dataclass(frozen=True, slots=True)
class Start:
    """Fill an empty place. The incarnation is drawn when the action is carried out."""

    place: ReplicaPlace
    deployment: Deployment
    reason: str
    gang: Gang = field(default_factory=Gang)


@dataclass(frozen=True, slots=True)
class Stop:
    """Let a replica hand its work back and exit."""

    incarnation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a replica's processes at once. Asked again in every round until it is seen dead."""

    incarnation: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportDead:
    """Tell the lane that a replica's process was seen to exit, then drop what the launcher knows of it.

    One action, since forgetting before the lane has heard of it would leave its requests to the end of the lease.
    """

    lane: str
    incarnation: str
    had_drained: bool


Action = Start | Stop | Kill | ReportDead
