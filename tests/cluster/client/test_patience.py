"""How long the client tries on."""

import pytest

from shardline.call_failure import CallFailure
from shardline.errors import DeadlineError, QueueFullError, UnavailableError
from shardline.patience import Patience, RetryLimits

LOST = CallFailure("UNAVAILABLE", "Connection refused")


def lose(patience: Patience, *, opened: float, now: float, back_off_s: float = 1.0) -> float:
    return patience.after(LOST, opened=opened, now=now, back_off_s=back_off_s)


def test_tries_go_on_until_the_outage_is_as_long_as_patience() -> None:
    patience = Patience(RetryLimits(patience_s=10))

    waits = [lose(patience, opened=t, now=t) for t in (100.0, 104.0, 109.0)]

    assert waits == [1.0, 1.0, 1.0]
    with pytest.raises(UnavailableError, match=r"9\.5 s \(patience is 10 s\)"):
        lose(patience, opened=109.5, now=109.5)


def test_short_connections_without_progress_do_not_renew_patience() -> None:
    patience = Patience(RetryLimits(patience_s=10))

    with pytest.raises(UnavailableError):
        for second in range(0, 100, 2):
            lose(patience, opened=second, now=second)
            patience.connected(second + 1)


def test_progress_renews_patience() -> None:
    patience = Patience(RetryLimits(patience_s=10))

    for second in range(0, 100, 5):
        lose(patience, opened=second, now=second)
        patience.connected(second + 1)
        patience.progressed()


def test_time_spent_connected_in_silence_uses_up_nothing() -> None:
    patience = Patience(RetryLimits(patience_s=10))

    for hour in range(5):
        opened, now = 3600.0 * hour + 1, 3600.0 * (hour + 1)
        assert lose(patience, opened=opened, now=now) == 1.0


def test_a_routers_own_delay_is_kept_where_it_is_longer_than_ours() -> None:
    patience = Patience(RetryLimits())
    failure = CallFailure("UNAVAILABLE", "the queue is away", retry_after_s=3.0)

    assert patience.after(failure, opened=0, now=0, back_off_s=1.0) == 3.0


def test_a_refusal_for_longer_than_anybody_waits_is_told_at_once() -> None:
    failure = CallFailure("RESOURCE_EXHAUSTED", "full", retry_after_s=3600.0)

    with pytest.raises(QueueFullError):
        Patience(RetryLimits()).after(failure, opened=0, now=0, back_off_s=0)


def test_a_bound_without_a_delay_is_told_at_once() -> None:
    failure = CallFailure("RESOURCE_EXHAUSTED", "Received message larger than max")

    with pytest.raises(QueueFullError):
        Patience(RetryLimits()).after(failure, opened=0, now=0, back_off_s=0)


def test_a_wait_that_ends_before_the_deadline_is_waited() -> None:
    assert lose(Patience(RetryLimits(), deadline=5.0), opened=1.0, now=1.0) == 1.0


def test_no_wait_goes_past_the_deadline() -> None:
    patience = Patience(RetryLimits(), deadline=5.0)

    with pytest.raises(DeadlineError, match="Connection refused"):
        lose(patience, opened=4.5, now=4.5)
    with pytest.raises(QueueFullError):
        patience.after(CallFailure("RESOURCE_EXHAUSTED", "", retry_after_s=9.0), opened=0, now=0, back_off_s=0)
