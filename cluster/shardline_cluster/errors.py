"""Errors of the control plane: each knows its gRPC code, whether a retry helps, and what to say.

A message tells what happened, the value, the bound and the remedy. The codes are plain names, so that decision modules
that raise them need no grpc.
"""

SHOWN_CHARACTERS = 80  # of a wrong value, in a message


def shown(text: str) -> str:
    """A text that a client sent, as messages show it: in quotes, and not more of it than helps."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")


class ShardlineError(Exception):
    """Something that a caller is told about."""

    code = "INTERNAL"  # name of a gRPC status code
    retryable = False
    retry_after_s: float | None = None


class ConfigurationError(ShardlineError):
    """A setting is wrong or does not fit another one; nothing was started."""

    code = "FAILED_PRECONDITION"


class InvalidRequestError(ShardlineError):
    """A field of a request is wrong. `field` is its path in the protobuf message."""

    code = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class UnauthenticatedError(ShardlineError):
    """No key was shown where one is needed, or one that is wrong, expired or revoked."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(ShardlineError):
    """The caller is known, but his key does not allow this."""

    code = "PERMISSION_DENIED"


class UnknownKeyError(ShardlineError):
    """There is no API key of this id."""

    code = "NOT_FOUND"


class KeyNotChangedError(ShardlineError):
    """An API key cannot be made or changed so: a file or a flag holds it, or nobody could make another one then."""

    code = "FAILED_PRECONDITION"


class UnknownModelError(ShardlineError):
    """No deployment has this name."""

    code = "NOT_FOUND"


class UnknownDeploymentError(ShardlineError):
    """No deployment has the name that an operator gave."""

    code = "NOT_FOUND"


class UnknownReplicaError(ShardlineError):
    """No replica has the incarnation that an operator gave."""

    code = "NOT_FOUND"


class LaneNotEmptyError(ShardlineError):
    """Requests that have been accepted would not fit a change."""

    code = "FAILED_PRECONDITION"


class ReplicaNotReadyError(ShardlineError):
    """A replica that does not serve cannot be drained."""

    code = "FAILED_PRECONDITION"


class UnknownRequestError(ShardlineError):
    """No record of this request exists for this tenant: its retention is over, or it never was."""

    code = "NOT_FOUND"


class KeyConflictError(ShardlineError):
    """The idempotency key belongs to a request with another body."""

    code = "ALREADY_EXISTS"


class ChangedMeanwhileError(ShardlineError):
    """Others changed the same record at the same time, again and again."""

    code = "ABORTED"


class RequestNotEndedError(ShardlineError):
    """Only an ended request can be forgotten."""

    code = "FAILED_PRECONDITION"


class QueueFullError(ShardlineError):
    """The lane has reached one of its bounds. `retry_after_s` comes from its measured drain rate."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(ShardlineError):
    """A key has used up its requests or tokens a minute. `retry_after_s` is when there is room again."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverLimitError(ShardlineError):
    """A request alone is larger than what its key may use in a whole minute: it can never be taken."""

    code = "INVALID_ARGUMENT"


class RequestCancelledError(ShardlineError):
    """A request ended because somebody cancelled it, told where an answer can be nothing but whole."""

    code = "CANCELLED"


class RequestExpiredError(ShardlineError):
    """A request ended because its time was up, or it waited too long for a replica."""

    code = "DEADLINE_EXCEEDED"


class RequestFailedError(ShardlineError):
    """A request ended without a result; the message says why."""


class AnswerTooLargeError(ShardlineError):
    """What a request has generated does not fit into one message."""

    code = "OUT_OF_RANGE"


class RequestTooLargeError(ShardlineError):
    """No deployed shape can ever hold this request."""

    code = "INVALID_ARGUMENT"


class DataLossError(ShardlineError):
    """What a client has seen and what the log holds differ; the message names the offset."""

    code = "DATA_LOSS"


class QueueUnavailableError(ShardlineError):
    """A call to the queue got no answer: it may or may not have run. Send the same call again."""

    code = "UNAVAILABLE"
    retryable = True
    retry_after_s = 1.0


class InvalidCallError(ShardlineError):
    """A call to the queue is malformed: a fault in the caller. Nothing was changed, and resending it does not help."""


class ModelNotLoadedError(ShardlineError):
    """A model is deployed, but this router cannot read its files (yet): the message says why."""

    code = "UNAVAILABLE"
    retryable = True
    retry_after_s = 1.0


class ShuttingDownError(ShardlineError):
    """This router is about to exit; what it streamed goes on through another one."""

    code = "UNAVAILABLE"
    retryable = True
    retry_after_s = 0.0


class EmbeddedServerError(ShardlineError):
    """The embedded Redis server could not be found or started."""

    code = "FAILED_PRECONDITION"
