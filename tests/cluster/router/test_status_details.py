"""What programs read of an error, in the bytes that gRPC libraries of every language know."""

from urllib.parse import quote

from shardline_cluster.errors import (
    InvalidRequestError,
    QueueFullError,
    ShardlineError,
    UnknownModelError,
)
from shardline_cluster.router.status_details import status_message, status_metadata
from shardline_protos.status_details_pb2 import BadRequest, RetryInfo, Status


def metadata_of(error: ShardlineError, code: int = 8) -> dict[str, str | bytes]:
    return dict(status_metadata(error, code=code, message=status_message(error)))


def details_of(error: ShardlineError) -> Status:
    packed = metadata_of(error)["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    return Status.FromString(packed)


def test_a_full_queue_tells_when_to_come_again() -> None:
    error = QueueFullError("the queue is full", retry_after_s=2.5)

    (detail,) = details_of(error).details

    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    assert RetryInfo.FromString(detail.value).retry_delay.ToMilliseconds() == 2_500
    assert metadata_of(error)["retry-after-ms"] == "2500"


def test_the_bytes_are_those_of_google_rpc() -> None:
    """Written down by hand after google/rpc/status.proto and error_details.proto."""
    packed = metadata_of(QueueFullError("full", retry_after_s=3.0))["grpc-status-details-bin"]

    url = b"type.googleapis.com/google.rpc.RetryInfo"
    retry_info = b"\x0a\x02" + b"\x08\x03"  # retry_delay { seconds: 3 }
    detail = b"\x0a" + bytes([len(url)]) + url + b"\x12\x04" + retry_info
    assert packed == b"\x08\x08" + b"\x12\x04full" + b"\x1a" + bytes([len(detail)]) + detail


def test_a_wrong_field_is_named() -> None:
    error = InvalidRequestError("sampling.top_p is 2: must be at most 1", field="sampling.top_p")

    (detail,) = details_of(error).details

    assert detail.type_url == "type.googleapis.com/google.rpc.BadRequest"
    (violation,) = BadRequest.FromString(detail.value).field_violations
    assert (violation.field, violation.description) == ("sampling.top_p", str(error))
    assert metadata_of(error)["invalid-field"] == "sampling.top_p"


def test_a_field_with_any_letters_fits_into_plain_metadata() -> None:
    assert metadata_of(InvalidRequestError("no", field="metadata[ö]"))["invalid-field"] == "metadata[\\xf6]"


def test_an_error_without_details_carries_none() -> None:
    assert metadata_of(UnknownModelError("no such model")) == {}


def test_the_longest_message_of_the_longest_letters_fits_into_headers() -> None:
    error = InvalidRequestError("😀" * 10_000, field="chat")
    metadata = metadata_of(error)

    size = len(quote(status_message(error))) + sum(len(k) + len(v) * 4 / 3 for k, v in metadata.items())

    assert status_message(error).startswith("😀😀😀")
    assert size < 8_000
