"""The tries of one call: which router is asked, what a failure means, how long to wait. Both clients drive it."""

import time
from typing import Any

from shardline.channels import failure_of
from shardline.endpoints import Endpoints
from shardline.patience import Patience


class CallAttempts:
    """The tries of one call that may be repeated at will, until it is answered or patience is over."""

    def __init__(self, endpoints: Endpoints, patience: Patience, *, method: str) -> None:
        self._endpoints = endpoints
        self._patience = patience
        self._method = method
        self._address = ""

    def next_address(self) -> str:
        """The router to ask now."""
        self._address = self._endpoints.choose(time.monotonic())
        return self._address

    def succeeded(self) -> None:
        """It has answered."""
        self._endpoints.succeeded(self._address)

    def failed(self, error: Any) -> float:
        """It has not; `error` is gRPC's. Seconds to wait before the next try.

        Raises:
            ShardlineError: no other try helps, or patience is used up.
        """
        failure = failure_of(error, method=self._method).of_bounded_call()
        now = time.monotonic()
        if failure.lost:
            self._endpoints.failed(self._address, now)
        return self._patience.after(failure, opened=now, now=now, back_off_s=self._endpoints.wait_s(now))
