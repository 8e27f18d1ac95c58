"""Which router a call asks next, and when it gives up."""

from types import SimpleNamespace

import grpc
import pytest

from shardline.call_attempts import CallAttempts
from shardline.endpoints import Endpoints
from shardline.errors import InvalidArgumentError, TlsError, UnavailableError, UnknownRequestError
from shardline.patience import Patience, RetryLimits
from shardline.retries import Retry
from tests.cluster.client.grpc_errors import FakeError

LOST = FakeError(grpc.StatusCode.UNAVAILABLE, "Connection refused")


def attempts_at(*addresses: str, patience_s: float = 60.0, method: str = "Cancel") -> CallAttempts:
    endpoints = Endpoints(addresses, draw=lambda: 0.0)
    return CallAttempts(endpoints, Patience(RetryLimits(patience_s=patience_s)), method=method)


def end_at_once(error: FakeError) -> None:
    attempts = attempts_at("a:1")
    attempts.next_address()
    attempts.ended(attempts.failure(error))


def test_a_router_that_was_lost_is_left_for_the_other() -> None:
    attempts = attempts_at("a:1", "b:1")

    first = attempts.next_address()
    delay_s = attempts.ended(attempts.failure(LOST))

    assert (first, delay_s, attempts.next_address()) == ("a:1", 0.0, "b:1")


def test_a_router_that_asks_to_come_again_is_not_blamed() -> None:
    attempts = attempts_at("a:1")
    attempts.next_address()

    delay_s = attempts.ended(
        attempts.failure(FakeError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=1_500))
    )

    assert delay_s == 1.5
    assert attempts.next_address() == "a:1"


def test_what_no_other_try_mends_is_told_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match="is wrong"):
        end_at_once(FakeError(grpc.StatusCode.INVALID_ARGUMENT, "is wrong"))
    with pytest.raises(UnknownRequestError):
        end_at_once(FakeError(grpc.StatusCode.NOT_FOUND))


def test_calls_that_nobody_answers_use_up_patience_however_long_each_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("shardline.call_attempts.time", SimpleNamespace(monotonic=lambda: now))
    attempts, num_tries = attempts_at("a:1", patience_s=60), 0

    with pytest.raises(UnavailableError, match="patience is 60 s"):
        while True:
            attempts.next_address()
            now += 20.0  # the call's own time limit
            num_tries += 1
            now += attempts.ended(attempts.failure(FakeError(grpc.StatusCode.DEADLINE_EXCEEDED)))

    assert num_tries == 4


def test_a_router_that_rejects_us_is_only_lost_while_another_one_may_do() -> None:
    expired = FakeError(grpc.StatusCode.UNAVAILABLE, "failed to connect: SSL_ERROR_SSL: certificate has expired")
    attempts = attempts_at("a:1", "b:1")

    for _ in range(2):
        attempts.next_address()
        failure = attempts.failure(expired)
        if attempts.address == "a:1":
            assert attempts.ended(failure) == 0.0

    with pytest.raises(TlsError, match=r"the router at b:1 cannot be talked to: the router's certificate has expired"):
        attempts.ended(failure)


def test_who_wants_to_know_hears_of_each_try_that_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heard = SimpleNamespace(now=100.0), list[Retry]()
    monkeypatch.setattr("shardline.call_attempts.time", SimpleNamespace(monotonic=lambda: clock.now))
    patience = Patience(RetryLimits(patience_s=5))
    attempts = CallAttempts(Endpoints("a:1", draw=lambda: 0.0), patience, method="Cancel", on_retry=heard.append)

    waits = []
    for instant in (100.0, 103.0):
        clock.now = instant
        attempts.next_address()
        waits.append(attempts.ended(attempts.failure(LOST)))
    clock.now = 120.0
    with pytest.raises(UnavailableError):
        attempts.ended(attempts.failure(LOST))

    assert [(retry.outage_s, retry.wait_s) for retry in heard] == [(0.0, waits[0]), (3.0, waits[1])]
    assert {(retry.method, retry.endpoint, retry.reason, retry.is_refusal) for retry in heard} == {
        ("Cancel", "a:1", "UNAVAILABLE: Connection refused", False)
    }
