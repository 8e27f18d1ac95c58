"""How long a call is tried again before its caller is told: pure bookkeeping on a clock that is handed in.

Two things use it up. An *outage* is time without a connection since the last progress; the time that a stream spends
connected, however silent, is none. A *refusal* is a router's wish to be asked again later, granted a few times only.
"""

from dataclasses import dataclass

from shardline.call_failure import CallFailure
from shardline.errors import DeadlineError, ShardlineError, UnavailableError

# A connection whose other end is silent is closed by keepalive within this; a call that lived longer was connected.
KEEPALIVE_BOUND_S = 20.0
# The longest delay asked for by a router that is kept to without the caller hearing of it.
LONGEST_REFUSAL_S = 60.0


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """What a caller puts up with."""

    patience_s: float = 60.0  # time without a connection and without progress
    max_refusals: int = 3  # times that RESOURCE_EXHAUSTED is waited out


class Patience:
    """The tries of one call. `deadline` is the instant after which no try makes sense; None: there is none."""

    def __init__(self, limits: RetryLimits, *, deadline: float | None = None) -> None:
        self._limits = limits
        self._deadline = deadline
        self._spent_s = 0.0  # of outages that are over
        self._lost_at: float | None = None  # since when the present outage lasts
        self._refusals = 0

    def remaining_s(self, now: float) -> float | None:
        """Time until the deadline, for a try that begins now; None without one.

        Raises:
            DeadlineError: there is none left.
        """
        if self._deadline is None:
            return None
        if now >= self._deadline:
            raise DeadlineError("the request's time is over, and no router told its end")
        return self._deadline - now

    def connected(self, at: float) -> None:
        """A router answered: the present outage, if any, is over."""
        if self._lost_at is not None:
            self._spent_s += max(0.0, at - self._lost_at)
            self._lost_at = None

    def progressed(self) -> None:
        """The call came further: everything before is forgiven."""
        self._spent_s = 0.0
        self._lost_at = None

    def outage_s(self, now: float) -> float:
        """Time without a connection, since the last progress."""
        return self._spent_s + (now - self._lost_at if self._lost_at is not None else 0.0)

    def after(self, failure: CallFailure, *, opened: float, now: float, back_off_s: float) -> float:
        """Seconds to wait before the next try, after one that was opened at `opened` failed at `now`.

        Raises:
            ShardlineError: no other try helps, or patience, refusals or deadline are used up.
        """
        if failure.refused:
            return self._in_time(self._after_refusal(failure), failure, now)
        if failure.rejection or not failure.lost:
            raise failure.error()
        return self._in_time(self._after_loss(failure, opened, now, back_off_s), failure, now)

    def _after_refusal(self, failure: CallFailure) -> float:
        self._refusals += 1
        delay_s = failure.retry_after_s or 0.0
        if self._refusals > self._limits.max_refusals or delay_s > LONGEST_REFUSAL_S:
            raise failure.error()
        return delay_s

    def _after_loss(self, failure: CallFailure, opened: float, now: float, back_off_s: float) -> float:
        if now - opened >= KEEPALIVE_BOUND_S:
            self.connected(opened)
        if self._lost_at is None:
            self._lost_at = now
        delay_s = max(back_off_s, failure.retry_after_s or 0.0)
        outage_s = self.outage_s(now)
        if outage_s + delay_s > self._limits.patience_s:
            raise UnavailableError(
                f"no router answered for {outage_s:.1f} s (patience is {self._limits.patience_s:g} s); "
                f"the last try ended with {failure.code}: {failure.details}",
                retry_after_s=failure.retry_after_s,
            )
        return delay_s

    def _in_time(self, delay_s: float, failure: CallFailure, now: float) -> float:
        """A wait past the deadline would only hide what went wrong."""
        if self._deadline is not None and now + delay_s >= self._deadline:
            raise _out_of_time(failure)
        return delay_s


def _out_of_time(failure: CallFailure) -> ShardlineError:
    if failure.refused:
        return failure.error()
    return DeadlineError(
        f"the request's time is over; the last try to reach a router ended with {failure.code}: {failure.details}"
    )
