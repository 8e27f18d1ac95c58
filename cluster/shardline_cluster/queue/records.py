"""The nouns of the token log: what a request is, what was granted, what the log holds, how it ended.

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
    has_prompt_log: bool = False  # the last sequence is the prompt's own, and no output


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
