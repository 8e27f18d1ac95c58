"""What a caller of the client can run into: one class for each situation.

Every error knows the gRPC code behind it and whether the same call may succeed later. Once a request has been accepted
its errors carry `request_id` and `cursor`: `client.resume(error.request_id, error.cursor)` goes on from there.
"""

from shardline.results import Completion


class ShardlineError(Exception):
    """Anything that this client raises."""

    code = "UNKNOWN"  # name of a gRPC status code
    retryable = False  # whether the same call may succeed later

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        request_id: str | None = None,
        cursor: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.cursor = cursor


class InvalidArgumentError(ShardlineError):
    """A field of the request is wrong; the message names it, its value and its bound."""

    code = "INVALID_ARGUMENT"


class NotFoundError(ShardlineError):
    """What the call names does not exist."""

    code = "NOT_FOUND"


class UnknownModelError(NotFoundError):
    """No deployment has this name."""


class UnknownRequestError(NotFoundError):
    """No such request: its retention is over, it was forgotten, or it never was."""


class KeyConflictError(ShardlineError):
    """The idempotency key belongs to a request with another body."""

    code = "ALREADY_EXISTS"


class QueueFullError(ShardlineError):
    """The cluster takes no more requests of this client now: its queue is full, or the key has used up its minute.

    The message says which. `retry_after_s` is the cluster's own word, for a key exactly the time to wait.
    """

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class UnavailableError(ShardlineError):
    """No router could be reached for as long as the client's patience lasted."""

    code = "UNAVAILABLE"
    retryable = True


class TlsError(ShardlineError):
    """Client and router do not agree on TLS, or on certificates; the message says on what. Waiting does not help."""

    code = "UNAVAILABLE"


class DeadlineError(ShardlineError):
    """The time that the caller gave is over and no end was heard of."""

    code = "DEADLINE_EXCEEDED"


class PreconditionError(ShardlineError):
    """The call does not fit the state of what it names, such as forgetting a request that still runs."""

    code = "FAILED_PRECONDITION"


class UnauthenticatedError(ShardlineError):
    """The router does not know who is calling."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(ShardlineError):
    """The router knows the caller, who may not do this."""

    code = "PERMISSION_DENIED"


class UnsupportedError(ShardlineError):
    """The router does not know this call; it may be of another version."""

    code = "UNIMPLEMENTED"


class DataLossError(ShardlineError):
    """What this client has received and what the cluster has recorded differ; the message names the offset."""

    code = "DATA_LOSS"


class StreamMismatchError(DataLossError):
    """The router sent tokens that do not join what came before: a gap, a repeat, or another request's."""


class ServerError(ShardlineError):
    """The router failed in a way that it should not."""

    code = "INTERNAL"


class StreamClosedError(ShardlineError):
    """This side closed the stream before its end was read."""

    code = "CANCELLED"


class NotCompletedError(ShardlineError):
    """The request ended, but not well. `completion` holds what was generated until then."""

    def __init__(self, message: str, *, completion: Completion) -> None:
        super().__init__(message, request_id=completion.request_id)
        self.completion = completion


class RequestCancelledError(NotCompletedError):
    """Somebody cancelled the request, or nobody listened to it any more."""

    code = "CANCELLED"


class RequestExpiredError(NotCompletedError):
    """The request's timeout, or its longest wait in the queue, was over first."""

    code = "DEADLINE_EXCEEDED"


class RequestFailedError(NotCompletedError):
    """The cluster could not complete the request; the message says why."""

    code = "INTERNAL"
