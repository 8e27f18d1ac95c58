"""What the queue answers."""

from dataclasses import dataclass
from enum import Enum

from shardline_cluster.queue.records import Grant, RequestEnd, RequestInfo, RequestState, SequenceLog


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is in the lane, durable as far as the durability setting says."""

    info: RequestInfo
    position: int  # requests that wait before it
    estimated_wait_ms: int | None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The request was there: the same id, or the same idempotency key and body."""

    info: RequestInfo


@dataclass(frozen=True, slots=True)
class KeyConflict:
    """The idempotency key belongs to a request with another body."""

    id: str


@dataclass(frozen=True, slots=True)
class LaneFull:
    """A bound is reached, or the server's memory is full."""

    bound: str  # name of the bound: a field of LaneBounds, or "memory"
    value: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class TooLarge:
    """More tokens than the largest deployed shape can hold."""

    tokens: int
    bound: int


SubmitAnswer = Accepted | Duplicate | KeyConflict | LaneFull | TooLarge


class InboxKind(Enum):
    """What a leader is told through its inbox."""

    ENDED = "ended"  # a request that it holds has ended
    DRAIN = "drain"  # hand everything back and exit


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A numbered message for a leader; it comes again until its number is acknowledged."""

    number: int
    kind: InboxKind
    id: str = ""


@dataclass(frozen=True, slots=True)
class GrantedRequest:
    """A request that now belongs to the claiming leader, with everything that the log holds of it."""

    info: RequestInfo
    grant: Grant
    logs: tuple[SequenceLog, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    """What a claim brought."""

    granted: tuple[GrantedRequest, ...]
    inbox: tuple[InboxEntry, ...]
    next_event_ms: int  # how long the lane will certainly have nothing new by itself; a hint, capped by the caller
    stale: bool = False  # a newer claim of this incarnation has run; nothing was done


class CommitCode(Enum):
    """How the queue answered one entry of a commit, tested in this order."""

    GONE = "GONE"  # no such record
    ENDED = "ENDED"  # the request has ended otherwise; `end` says how
    FENCED = "FENCED"  # another grant owns it; `epoch` is the record's
    BEHIND = "BEHIND"  # the log is shorter than `offset`: `lengths` are what it holds
    CONFLICT = "CONFLICT"  # the log holds other ids under this very grant
    HELD = "HELD"  # ids taken, but it must not end during a hold: send the finish again
    OK = "OK"


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The answer to one entry."""

    id: str
    code: CommitCode
    lengths: tuple[int, ...] = ()  # log lengths after OK and HELD, and with BEHIND
    epoch: int = 0  # with FENCED
    end: RequestEnd | None = None  # with ENDED, and with an OK that ended the request


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """What a commit brought. `held` is None unless the list was asked for."""

    results: tuple[CommitResult, ...]
    inbox: tuple[InboxEntry, ...]
    num_held: int
    held_digest: str
    held: tuple[tuple[str, Grant], ...] | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """No such request for this tenant."""


@dataclass(frozen=True, slots=True)
class OnHold:
    """The server may have forgotten it: ask again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A request's end, with every id up to it: who tells an end must be able to restore it."""

    info: RequestInfo
    end: RequestEnd
    logs: tuple[SequenceLog, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Record and logs at one instant, logs from token 0."""

    info: RequestInfo
    state: RequestState
    epoch: int  # claims so far
    attempts: int  # counted crashes
    position: int | None  # requests that wait before it, while it waits
    logs: tuple[SequenceLog, ...]
    end: RequestEnd | None


class RestoreCode(Enum):
    """How the queue answered a restore."""

    OK = "OK"
    SHORT = "SHORT"  # ids begin past the log's end: send them from `offset`
    DIVERGED = "DIVERGED"  # the log differs from `offset` on
    ENDED = "ENDED"  # an end is there already; `end` says which
    OTHER = "OTHER"  # another run lives under this id
    FORGOTTEN = "FORGOTTEN"  # it was deleted on demand, and stays so
    REFUSED = "REFUSED"  # ids were taken, the grant was not


@dataclass(frozen=True, slots=True)
class RestoreAnswer:
    """The answer to a restore."""

    code: RestoreCode
    sequence: int = 0
    offset: int = 0
    end: RequestEnd | None = None


class ForgetCode(Enum):
    """How the queue answered a forget."""

    FORGOTTEN = "FORGOTTEN"
    NOT_ENDED = "NOT_ENDED"
    GONE = "GONE"


@dataclass(frozen=True, slots=True)
class LeaderView:
    """One registered leader as `shardline status` shows it."""

    incarnation: str
    lease_ends_ms: int
    num_held: int
    numerics_id: str
    status: str


@dataclass(frozen=True, slots=True)
class LaneView:
    """A lane at one instant."""

    waiting_requests: int
    waiting_tokens: int
    running_requests: int
    handed_back_requests: int
    oldest_wait_ms: int
    hold_ends_ms: int | None  # None outside a hold
    now_ms: int
    leaders: tuple[LeaderView, ...]
    num_routers: int
