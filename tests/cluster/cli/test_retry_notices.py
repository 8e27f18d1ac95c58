"""What a person hears while a client reconnects."""

import pytest

from shardline import Retry
from shardline_cluster.cli.retry_notices import RetryNotices


def lost(outage_s: float, wait_s: float = 0.5) -> Retry:
    return Retry(
        method="Resume", endpoint="a:1", reason="UNAVAILABLE: gone", is_refusal=False, outage_s=outage_s, wait_s=wait_s
    )


def test_an_outage_is_told_once_and_with_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    notices = RetryNotices()

    for outage_s in (0.0, 0.6, 1.5, 4.0, 30.0):
        notices(lost(outage_s))

    error = capsys.readouterr().err
    assert error.startswith("shardline: no router answers (UNAVAILABLE: gone): reconnecting … (for 60 s at most")
    assert error.count("\n") == 1


def test_a_router_that_is_back_at_once_is_not_worth_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    notices = RetryNotices()

    for _ in range(5):
        notices(lost(0.1))

    assert capsys.readouterr().err == ""


def test_the_next_outage_is_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    notices = RetryNotices()

    for outage_s in (0.8, 5.0, 0.0, 0.7, 3.0):
        notices(lost(outage_s))

    assert capsys.readouterr().err.count("reconnecting") == 2


def test_a_router_that_asks_to_wait_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "RESOURCE_EXHAUSTED: full"

    RetryNotices()(Retry(method="Generate", endpoint="a:1", reason=reason, is_refusal=True, outage_s=0.0, wait_s=3.0))

    assert capsys.readouterr().err == f"shardline: a:1 is busy ({reason}): trying again in 3 s\n"
