"""What a subscription brings: hints, whose truth is in the log."""

from dataclasses import dataclass

from shardline_cluster.queue.calls import SequenceCommit
from shardline_cluster.queue.records import RequestEnd


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The subscription was confirmed by the server: read the truth now, messages before this may be lost."""


@dataclass(frozen=True, slots=True)
class Wake:
    """There may be work, or mail, for this leader."""


@dataclass(frozen=True, slots=True)
class Published:
    """New ids of one request, or its end, or that it was claimed: a hint whose truth is in the log."""

    identity: str  # of the server that published it
    id: str
    epoch: int
    sequences: tuple[SequenceCommit, ...]
    end: RequestEnd | None


QueueMessage = Subscribed | Wake | Published
