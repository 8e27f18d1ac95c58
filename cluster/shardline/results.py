"""What the client hands out: events of a stream, completions, states. Frozen data, no protobuf in sight."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class RequestState(Enum):
    """Where a request stands. All but the first two are ends."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self not in (RequestState.WAITING, RequestState.RUNNING)


class FinishReason(Enum):
    """Why one sequence ended."""

    STOP = "stop"  # an end-of-text token, a stop id or a stop string
    LENGTH = "length"  # max_tokens, or the context is full
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token that could have stood in this place."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of the probabilities at one position: the chosen token and the likeliest ones."""

    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Counted tokens; completion tokens of all sequences together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


# --- events of a stream ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The request is durable from here on."""

    request_id: str
    cursor: bytes
    model: str
    duplicate: bool  # it was there already
    prompt_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The request waits for a replica."""

    request_id: str
    cursor: bytes
    position: int  # requests before this one
    estimated_wait_s: float | None  # None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A replica has claimed the request."""

    request_id: str
    cursor: bytes
    attempt: int  # 1 for the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New output of one sequence. Several of them, in order, are the sequence."""

    request_id: str
    cursor: bytes
    sequence: int
    offset: int  # tokens of this sequence before these
    token_ids: tuple[int, ...]
    text: str  # may be empty while a character or a stop string is incomplete
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None  # set in the last one of a sequence that ended by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens:
    """Tokens of the prompt itself, where `prompt_logprobs` was asked for. Several of them, in order, are the prompt."""

    request_id: str
    cursor: bytes
    offset: int  # tokens of the prompt before these
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs | None, ...]  # one for each; None for the first, before which nothing stands


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceEnd:
    """How one sequence ended."""

    sequence: int
    finish_reason: FinishReason | None
    num_tokens: int
    stop: str = ""  # the stop string that was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The request's one end."""

    request_id: str
    cursor: bytes
    state: RequestState
    sequences: tuple[SequenceEnd, ...]
    usage: Usage
    error: str = ""


Event = Accepted | Queued | Started | PromptTokens | Tokens | Finished


# --- whole results -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceOutput:
    """All of one sequence that was received."""

    sequence: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    stop: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An ended request with its outputs, in order of their sequence numbers."""

    request_id: str
    model: str
    state: RequestState
    outputs: tuple[SequenceOutput, ...]
    usage: Usage
    error: str = ""
    # Where `prompt_logprobs` was asked for: one of each for every token of the prompt; None for the first.
    prompt_token_ids: tuple[int, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()

    @property
    def text(self) -> str:
        """The text of the first sequence."""
        return self.outputs[0].text if self.outputs else ""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The token ids of the first sequence."""
        return self.outputs[0].token_ids if self.outputs else ()

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first sequence ended."""
        return self.outputs[0].finish_reason if self.outputs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """A request at one instant, with everything that it has generated so far."""

    request_id: str
    model: str
    state: RequestState
    submitted: datetime.datetime | None  # in UTC
    deadline: datetime.datetime | None  # in UTC; None: it has none
    attempts: int  # counted crashes
    prompt_tokens: int
    outputs: tuple[SequenceOutput, ...]
    finished: Finished | None  # of an ended request
    cursor: bytes  # after everything in `outputs`
    metadata: Mapping[str, str] = field(default_factory=dict)
    prompt_token_ids: tuple[int, ...] = ()  # where `prompt_logprobs` was asked for
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The end that a request has now, which need not be a cancellation if another came first."""

    state: RequestState
    end_offsets: tuple[int, ...]  # tokens of each sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A deployed model."""

    name: str
    max_model_len: int
    ready_replicas: int
    desired_replicas: int
    waiting_requests: int
    running_requests: int
    has_chat_template: bool
    default_sampling: Mapping[str, float] = field(default_factory=dict)  # the model's own, by option of a request


@dataclass(frozen=True, slots=True)
class Tokenization:
    """A prompt's tokens, and how many the model can hold in all."""

    token_ids: tuple[int, ...]
    max_model_len: int


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """What one router says of itself: SERVING or NOT_SERVING; else, with the reason, UNREACHABLE, or REJECTED where it
    and this client do not agree on TLS.
    """

    endpoint: str
    status: str
    reason: str = ""

    @property
    def answers(self) -> bool:
        """Whether this router can be talked to."""
        return self.status not in ("UNREACHABLE", "REJECTED")

    @property
    def serving(self) -> bool:
        """Whether this router takes requests."""
        return self.status == "SERVING"
