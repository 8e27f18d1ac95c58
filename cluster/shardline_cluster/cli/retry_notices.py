"""Tells a person who waits why nothing comes: one line on standard error for each outage, not one for each try."""

import sys

from shardline import Retry

# A router that is replaced is back sooner, and nobody wonders about that.
QUIET_S = 1.0


class RetryNotices:
    """Hears of a client's retries, see `OnRetry`."""

    def __init__(self, *, patience_s: float = 60.0) -> None:
        """`patience_s` is the client's: it says when the tries end."""
        self._patience_s = patience_s
        self._told_s: float | None = None  # length of the outage when it was told; None: the present one was not

    def __call__(self, retry: Retry) -> None:
        """Says what is worth saying."""
        if retry.is_refusal:
            print(
                f"shardline: {retry.endpoint} is busy ({retry.reason}): trying again in {retry.wait_s:.0f} s",
                file=sys.stderr,
            )
            return
        if self._told_s is not None and retry.outage_s < self._told_s:  # that one is over, and this is another
            self._told_s = None
        if self._told_s is None and retry.outage_s + retry.wait_s >= QUIET_S:
            self._told_s = retry.outage_s
            print(
                f"shardline: no router answers ({retry.reason}): reconnecting … (for {self._patience_s:.0f} s at most; "
                "what was accepted is not lost)",
                file=sys.stderr,
            )
