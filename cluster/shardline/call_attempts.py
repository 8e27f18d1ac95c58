"""The tries of one call: which router is asked, what a failure means, how long to wait. Both clients drive it."""

import time
from typing import Any

from shardline.call_failure import CallFailure
from shardline.channels import failure_of
from shardline.endpoints import Endpoints
from shardline.patience import Patience
from shardline.retries import OnRetry, retry_of


class CallAttempts:
    """The tries of one call that may be repeated at will, until it is answered or patience is over."""

    def __init__(
        self, endpoints: Endpoints, patience: Patience, *, method: str, on_retry: OnRetry | None = None
    ) -> None:
        self._endpoints = endpoints
        self._patience = patience
        self._method = method
        self._on_retry = on_retry
        self._address = ""

    @property
    def address(self) -> str:
        """The router that was asked last."""
        return self._address

    def next_address(self) -> str:
        """The router to ask now."""
        self._address = self._endpoints.choose(time.monotonic())
        return self._address

    def succeeded(self) -> None:
        """It has answered."""
        self._endpoints.succeeded(self._address)

    def failure(self, error: Any) -> CallFailure:
        """It has not; `error` is gRPC's."""
        return failure_of(error, method=self._method, address=self._address).of_bounded_call()

    def ended(self, failure: CallFailure) -> float:
        """A try has failed. Seconds to wait before the next one.

        Raises:
            ShardlineError: no other try helps, or patience is used up.
        """
        now = time.monotonic()
        failure = self._endpoints.after(self._address, failure, now)
        wait_s = self._patience.after(failure, opened=now, now=now, back_off_s=self._endpoints.wait_s(now))
        if self._on_retry is not None:
            outage_s = self._patience.outage_s(now)
            retry = retry_of(failure, method=self._method, endpoint=self._address, outage_s=outage_s, wait_s=wait_s)
            self._on_retry(retry)
        return wait_s
