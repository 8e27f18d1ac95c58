"""The nouns of the token log: what a request is, what was granted, what was committed, how it ended.

Plain frozen data, the same for the Redis queue and its twin in memory. Token ids travel packed (uint32, little-endian)
because they are compared, appended and checksummed far more often than they are read; `log_encoding` opens them.
"""

from dataclasses import dataclass
from enum import Enum


class RequestState(Enum):
    """Where a request stands. All but the first two are terminal and are written once."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self not in (RequestState.WAITING, RequestState.RUNNING)


class DisconnectAction(Enum):
    """What becomes of a request whose last listener went away."""

    GRACE = "grace"
    CANCEL = "cancel"
    CONTINUE = "continue"


class MemberRole(Enum):
    """Who holds a lease in a lane."""

    LEADER = "leader"
    ROUTER = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request as its router hands it to the queue. Resent unchanged, it is the same request.

    `drawn` is the server identity under which the id was drawn (or derived): it decides whether the request may be
    older than a hold.
    """

    id: str  # `LANE-` and 32 hexadecimal digits
    drawn: str
    payload: bytes  # a serialised shardline.record.v1.RequestPayload
    tenant: str
    priority: int  # -100 … 100, lower first
    num_sequences: int
    prompt_tokens: int
    max_tokens: int  # of each sequence
    num_logprobs: int | None  # likeliest tokens beside the chosen one; None records no log-probabilities
    timeout_ms: int | None  # from acceptance to the end
    max_queue_ms: int
    on_disconnect: DisconnectAction
    grace_ms: int
    retention_ms: int
    store: bool
    idempotency_key: str | None
    body_digest: str  # hexadecimal; two submissions under one key must agree in it
    background: bool  # no listener is registered


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """What a record says for ever: the submission and the instants that its acceptance fixed.

    Whoever holds it can recreate the record in a server that forgot it.
    """

    submission: Submission
    submitted_ms: int  # the server's clock
    deadline_ms: int | None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.submission.id


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to write a request: both parts are compared, since a counter is no fence where servers forget."""

    epoch: int  # counts the request's claims, from 1
    nonce: bytes  # 8 bytes, drawn by the claiming leader


@dataclass(frozen=True, slots=True)
class SequenceFinish:
    """How one sequence ended by itself."""

    reason: str  # a value of shardline_workers.engine.FinishReason
    stop: str = ""  # the stop string that was found
    text_end: int | None = None  # characters of the sequence's text that count; None: all of them


@dataclass(frozen=True, slots=True)
class SequenceLog:
    """What the log holds of one sequence, from token 0."""

    ids: bytes = b""  # uint32 little-endian, 4 bytes a token
    logprobs: bytes = b""  # fixed width for each token, see log_encoding; empty where none are kept
    finish: SequenceFinish | None = None

    @property
    def num_tokens(self) -> int:
        """Length of the log."""
        return len(self.ids) // 4


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """The one end of a request, with the offset of each sequence at which its log was frozen."""

    state: RequestState
    offsets: tuple[int, ...]
    finishes: tuple[SequenceFinish | None, ...]
    error: str = ""
    ended_ms: int = 0  # the server's clock; not part of what makes two ends equal

    def same_as(self, other: "RequestEnd") -> bool:
        """Whether both tell a client the same."""
        return (self.state, self.offsets, self.finishes) == (other.state, other.offsets, other.finishes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A leader or router as it registers. Registering again renews its lease and rewrites what it says of itself."""

    incarnation: str
    role: MemberRole
    numerics_id: str = ""
    max_slots: int = 0
    max_tokens: int = 0
    status: str = ""  # JSON of a fleet.ReplicaStatus, for the controller and `shardline status`; opaque to the queue


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneBounds:
    """What a lane takes in before it answers FULL or TOO_LARGE."""

    max_waiting_requests: int = 10_000
    max_waiting_tokens: int = 50_000_000
    max_waiting_bytes: int = 1 << 30
    largest_request_tokens: int | None = None  # prompt and output of the largest deployed shape; None: not known yet
    tenant_weights: tuple[tuple[str, float], ...] = ()  # absent tenants weigh 1


# --- calls -------------------------------------------------------------------------------------------------------


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


# --- answers -----------------------------------------------------------------------------------------------------


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
class DeadMember:
    """A leader whose process was seen to exit."""

    incarnation: str
    had_drained: bool


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


# --- what is published -------------------------------------------------------------------------------------------


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
