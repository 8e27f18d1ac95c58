"""What routers, leaders and the controller hand to the queue besides a submission."""

from dataclasses import dataclass
from enum import Enum

from shardline_cluster.queue.records import Grant, RequestEnd, RequestInfo, SequenceFinish, SequenceLog


class MemberRole(Enum):
    """Who holds a lease in a lane."""

    LEADER = "leader"
    ROUTER = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A leader or router as it registers. Registering again renews its lease and rewrites what it says of itself."""

    incarnation: str
    role: MemberRole
    numerics_id: str = ""
    max_slots: int = 0
    max_tokens: int = 0
    status: str = ""  # JSON of a fleet.ReplicaStatus, for the controller and `shardline status`; opaque to the queue


@dataclass(frozen=True, slots=True)
class DeadMember:
    """A leader whose process was seen to exit."""

    incarnation: str
    had_drained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneBounds:
    """What a lane takes in before it answers FULL or TOO_LARGE."""

    max_waiting_requests: int = 10_000
    max_waiting_tokens: int = 50_000_000
    max_waiting_bytes: int = 1 << 30
    largest_request_tokens: int | None = None  # prompt and output of the largest deployed shape; None: not known yet
    tenant_weights: tuple[tuple[str, float], ...] = ()  # absent tenants weigh 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCall:
    """A leader asks for work. Resent unchanged, it brings the same requests."""

    incarnation: str
    number: int  # rises by one with each new claim of an incarnation, from 1
    nonce: bytes  # 8 random bytes, new for each number
    free_slots: int  # in sequences
    free_tokens: int
    inbox_seen: int  # highest inbox number that was read; 0 for none


@dataclass(frozen=True, slots=True)
class SequenceCommit:
    """New tokens of one sequence."""

    sequence: int
    offset: int  # tokens before `ids`
    ids: bytes = b""
    logprobs: bytes = b""
    finish: SequenceFinish | None = None


@dataclass(frozen=True, slots=True)
class CommitEntry:
    """What a leader writes about one request; without sequences it only asks how the request stands."""

    id: str
    grant: Grant
    sequences: tuple[SequenceCommit, ...] = ()
    error: str = ""  # not empty: the request is to end as FAILED with this reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitCall:
    """One step of a whole batch. Without entries it is a heartbeat."""

    incarnation: str
    inbox_seen: int
    entries: tuple[CommitEntry, ...] = ()
    list_held: bool = False  # answer with the whole of what is held, not only its size and digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreCall:
    """A request as a leader or router knows it, for a server that may have forgotten.

    With `grant` a leader asks to go on owning it; with `end` the request's end is told; with neither the record and
    its ids are completed.
    """

    incarnation: str
    info: RequestInfo
    logs: tuple[SequenceLog, ...]
    grant: Grant | None = None
    end: RequestEnd | None = None
