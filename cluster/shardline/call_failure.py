"""What a failed call means: whether another try can help, and which error tells the caller.

Knows status codes by name only, so that everything that decides on retries is tested without a network.
"""

from dataclasses import dataclass, replace

from shardline import errors, handshake
from shardline.errors import ShardlineError

# A killed router can surface as one of these codes with a text of the transport. The router's own failures carry the
# same codes, but other texts, and would fail again.
_AMBIGUOUS_CODES = frozenset({"INTERNAL", "UNKNOWN"})
_TRANSPORT_TEXTS = (
    "rst_stream",
    "goaway",
    "stream removed",
    "stream closed",
    "socket closed",
    "connection",
    "transport",
    "broken pipe",
    "endpoint closing",
    "keepalive",
    "eof",
)

_METHODS_OF_MODELS = frozenset({"Generate", "Tokenize", "Detokenize"})  # the others name a request

_ERRORS: dict[str, type[ShardlineError]] = {
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "OUT_OF_RANGE": errors.InvalidArgumentError,
    "ALREADY_EXISTS": errors.KeyConflictError,
    "RESOURCE_EXHAUSTED": errors.QueueFullError,
    "UNAVAILABLE": errors.UnavailableError,
    "CANCELLED": errors.UnavailableError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
    "FAILED_PRECONDITION": errors.PreconditionError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "UNIMPLEMENTED": errors.UnsupportedError,
    "DATA_LOSS": errors.DataLossError,
}


@dataclass(frozen=True, slots=True)
class CallFailure:
    """How one try of a call ended without its answer."""

    code: str  # name of a gRPC status code
    details: str
    retry_after_s: float | None = None  # as the router asked
    method: str = ""  # of the service: it says what NOT_FOUND was about
    rejection: str = ""  # why client and router do not agree on TLS, in whole words

    @property
    def lost(self) -> bool:
        """Whether the connection or its router went away, so that another try may reach another one."""
        if self.code in ("UNAVAILABLE", "CANCELLED"):
            return True
        details = self.details.lower()
        return self.code in _AMBIGUOUS_CODES and any(text in details for text in _TRANSPORT_TEXTS)

    @property
    def refused(self) -> bool:
        """Whether the router asked to come again later. Without a delay it is a bound that will not go away."""
        return self.code == "RESOURCE_EXHAUSTED" and self.retry_after_s is not None

    @property
    def hung_up(self) -> bool:
        """Whether the router closed a new connection without a word: TLS may be why."""
        return self.code == "UNAVAILABLE" and not self.rejection and handshake.hung_up(self.details)

    def rejected(self, address: str, reason: str) -> "CallFailure":
        """The same, with why this router and this client do not agree on TLS; with no reason it is as it was."""
        told = f"the router at {address} cannot be talked to: {reason} ({self.details})" if reason else ""
        return replace(self, rejection=told)

    def of_bounded_call(self) -> "CallFailure":
        """The same, of a call whose time limit was this client's own: its answer is lost, no request is out of time."""
        return replace(self, code="UNAVAILABLE") if self.code == "DEADLINE_EXCEEDED" else self

    def error(self) -> ShardlineError:
        """The error that tells a caller."""
        if self.rejection:
            return errors.TlsError(self.rejection)
        return self._error_class()(self.details or f"the call ended with {self.code}", retry_after_s=self.retry_after_s)

    def _error_class(self) -> type[ShardlineError]:
        if self.code != "NOT_FOUND":
            return _ERRORS.get(self.code, errors.ServerError)
        return errors.UnknownModelError if self.method in _METHODS_OF_MODELS else errors.UnknownRequestError


STREAM_ENDED = CallFailure("UNAVAILABLE", "the stream ended before the request did")
