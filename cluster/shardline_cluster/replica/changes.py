"""What an answer of the queue means for the engine."""

from dataclasses import dataclass, field

from shardline_cluster.replica.held_request import HeldRequest


@dataclass(frozen=True, slots=True)
class Dropped:
    """A request that this leader has no right to any more."""

    request: HeldRequest
    reason: str


@dataclass(slots=True)
class Changes:
    """What an answer means for the engine: first drop, then start."""

    dropped: list[Dropped] = field(default_factory=list)
    started: list[HeldRequest] = field(default_factory=list)
