"""What a status carries beside its code and text, for programs: when to come again, and which field is wrong.

Told twice: as google.rpc details, which gRPC libraries of every language read (`grpc-status-details-bin`), and as plain
metadata for those who have none, `retry-after-ms` and `invalid-field`.
"""

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from shardline_cluster.errors import InvalidRequestError, ShardlineError
from shardline_cluster.router.protobuf_times import duration_of
from shardline_protos.status_details_pb2 import BadRequest, RetryInfo, Status

RETRY_AFTER_KEY = "retry-after-ms"
INVALID_FIELD_KEY = "invalid-field"
DETAILS_KEY = "grpc-status-details-bin"
TYPE_URL = "type.googleapis.com/google.rpc."
# All of it travels in headers, for which gRPC has room for 8 KB: the message up to three times as long where it is not
# ASCII, and twice more in the details, a third longer.
MAX_MESSAGE_BYTES = 1200


def status_message(error: ShardlineError) -> str:
    """The text of an error, as long as may be."""
    return str(error).encode("utf-8", "replace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")


def status_metadata(error: ShardlineError, *, code: int, message: str) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of an error that travels with this gRPC code and message; both stand in the details too."""
    plain: list[tuple[str, str | bytes]] = []
    details: list[Any] = []
    if error.retryable and error.retry_after_s is not None:
        retry_after_ms = round(error.retry_after_s * 1000)
        plain.append((RETRY_AFTER_KEY, str(retry_after_ms)))
        details.append(_detail(RetryInfo(retry_delay=duration_of(retry_after_ms))))
    if isinstance(error, InvalidRequestError):
        plain.append((INVALID_FIELD_KEY, error.field.encode("ascii", "backslashreplace").decode()))
        violation = BadRequest.FieldViolation(field=error.field, description=message)
        details.append(_detail(BadRequest(field_violations=[violation])))
    if not details:
        return ()
    status = Status(code=code, message=message, details=details)
    return (*plain, (DETAILS_KEY, status.SerializeToString()))


def _detail(message: Message) -> Any:
    """Under Google's name: the bytes are the same."""
    return Any(type_url=TYPE_URL + message.DESCRIPTOR.name, value=message.SerializeToString())
