"""What a router has to ask the queue about its streams: decided by `LaneStreams`, carried out by `TokenStreams`."""

from dataclasses import dataclass

from shardline_cluster.queue.calls import RestoreCall


@dataclass(frozen=True, slots=True)
class AttachStream:
    """Listen to a request and read all of it that comes after what this server has shown before."""

    request_id: str
    tenant: str
    number: int
    held: tuple[int, ...] = ()  # tokens of each sequence


@dataclass(frozen=True, slots=True)
class DetachStream:
    """Nobody here reads this request any more."""

    request_id: str
    number: int


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Give the server back what it may have forgotten of a request."""

    call: RestoreCall


LaneCall = AttachStream | DetachStream | RestoreRequest
