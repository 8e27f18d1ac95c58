"""Which failures another router can mend, and what the others are called."""

import pytest

from shardline import errors
from shardline.call_failure import STREAM_ENDED, CallFailure


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses"),
        ("CANCELLED", "CANCELLED"),
        ("UNKNOWN", "Stream removed"),
        ("INTERNAL", "Received RST_STREAM with error code 2"),
        ("INTERNAL", "GOAWAY received"),
        ("UNKNOWN", "recvmsg:Connection reset by peer"),
    ],
)
def test_a_router_that_went_away_is_another_routers_business(code: str, details: str) -> None:
    assert CallFailure(code, details).lost


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("INTERNAL", "the tokenizer failed"),
        ("UNKNOWN", "Exception calling application: 'x'"),
        ("INVALID_ARGUMENT", "sampling.top_p is 2"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("RESOURCE_EXHAUSTED", "the lane is full"),
        ("DATA_LOSS", "the connection between prefix and log is broken"),
    ],
)
def test_what_a_router_itself_said_is_not(code: str, details: str) -> None:
    assert not CallFailure(code, details).lost


def test_a_new_connection_that_was_closed_without_a_word_is_one_to_look_at() -> None:
    closed = CallFailure("UNAVAILABLE", "failed to connect to all addresses; last error: Socket closed")

    assert closed.hung_up
    assert not closed.rejected("a:1", "it speaks TLS").hung_up
    assert not CallFailure("UNAVAILABLE", "Socket closed").hung_up
    assert not CallFailure("UNAVAILABLE", "failed to connect to all addresses; Connection refused").hung_up


def test_what_is_rejected_for_a_reason_is_told_as_such() -> None:
    closed = CallFailure("UNAVAILABLE", "failed to connect; Socket closed")

    error = closed.rejected("a:1", "it speaks TLS there").error()

    assert isinstance(error, errors.TlsError)
    assert not error.retryable
    assert str(error).startswith("the router at a:1 cannot be talked to: it speaks TLS there")
    assert isinstance(closed.rejected("a:1", "").error(), errors.UnavailableError)


def test_an_early_end_of_a_stream_is_a_lost_connection() -> None:
    assert STREAM_ENDED.lost


def test_our_own_time_limit_loses_an_answer_and_ends_no_request() -> None:
    assert CallFailure("DEADLINE_EXCEEDED", "").of_bounded_call().lost
    assert not CallFailure("NOT_FOUND", "").of_bounded_call().lost


@pytest.mark.parametrize(
    ("code", "method", "kind"),
    [
        ("INVALID_ARGUMENT", "Generate", errors.InvalidArgumentError),
        ("NOT_FOUND", "Generate", errors.UnknownModelError),
        ("NOT_FOUND", "Tokenize", errors.UnknownModelError),
        ("NOT_FOUND", "Cancel", errors.UnknownRequestError),
        ("ALREADY_EXISTS", "Generate", errors.KeyConflictError),
        ("RESOURCE_EXHAUSTED", "Generate", errors.QueueFullError),
        ("DEADLINE_EXCEEDED", "Generate", errors.DeadlineError),
        ("FAILED_PRECONDITION", "Forget", errors.PreconditionError),
        ("UNAUTHENTICATED", "Generate", errors.UnauthenticatedError),
        ("PERMISSION_DENIED", "Generate", errors.PermissionDeniedError),
        ("UNIMPLEMENTED", "Generate", errors.UnsupportedError),
        ("DATA_LOSS", "Resume", errors.DataLossError),
        ("ABORTED", "Generate", errors.ServerError),
    ],
)
def test_each_situation_has_its_error(code: str, method: str, kind: type[errors.ShardlineError]) -> None:
    error = CallFailure(code, "the reason", retry_after_s=1.5, method=method).error()

    assert type(error) is kind
    assert str(error) == "the reason"
    assert error.retry_after_s == 1.5


def test_an_error_without_a_text_names_its_code() -> None:
    assert str(CallFailure("ABORTED", "").error()) == "the call ended with ABORTED"
