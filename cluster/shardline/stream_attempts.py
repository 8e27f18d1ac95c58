"""The connections that a stream takes, one after the other: which router, what its end means. Both clients drive it."""

import time
from typing import Any, Protocol

from shardline.call_failure import CallFailure
from shardline.channels import failure_of
from shardline.endpoints import Endpoints
from shardline.results import Event
from shardline.retries import OnRetry, retry_of
from shardline.token_stream import TokenStream
from shardline.trace_context import Metadata
from shardline_protos import generation_pb2 as pb


class Routers(Protocol):
    """What it takes of `RouterChannels`."""

    def stub(self, address: str) -> Any:
        """The service of a router."""
        ...

    def examined(self, address: str, failure: CallFailure) -> CallFailure:
        """A failure with its reason."""
        ...


class StreamAttempts:
    """At most one call of one stream is open."""

    def __init__(
        self,
        core: TokenStream,
        endpoints: Endpoints,
        routers: Routers,
        *,
        metadata: Metadata | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        """`metadata` goes with each of its calls."""
        self._core = core
        self._endpoints = endpoints
        self._routers = routers
        self._metadata = metadata
        self._on_retry = on_retry
        self._call: Any = None
        self._address = ""
        self._method = ""

    def call(self) -> Any:
        """The call that is open, or a new one.

        Raises:
            ShardlineError: the request's time is over, or the client is closed.
        """
        if self._call is None:
            now = time.monotonic()
            request, timeout_s = self._core.next_request(now)
            self._address = self._endpoints.choose(now)
            self._method = "Generate" if isinstance(request, pb.GenerateRequest) else "Resume"
            self._call = getattr(self._routers.stub(self._address), self._method)(
                request, timeout=timeout_s, metadata=self._metadata
            )
        return self._call

    def received(self, message: pb.GenerateEvent) -> Event | None:
        """Takes a message of the open call in; returns what it tells the caller that the caller does not know yet.

        Raises:
            ShardlineError: it does not join what came before, or makes no sense.
        """
        event = self._core.receive(message, time.monotonic())
        self._endpoints.succeeded(self._address)
        return event

    def failure(self, error: Any) -> CallFailure:
        """How the open call ended, by gRPC's error."""
        return failure_of(error, method=self._method, address=self._address)

    def examined(self, failure: CallFailure) -> CallFailure:
        """The same, with its reason where TLS was it; blocks for some seconds at most where a router `hung_up`."""
        return self._routers.examined(self._address, failure)

    def ended(self, failure: CallFailure) -> float:
        """The open call has ended. Seconds to wait before the next one.

        Raises:
            ShardlineError: no other try helps, or patience is used up.
        """
        self._call = None
        now = time.monotonic()
        failure = self._endpoints.after(self._address, failure, now)
        wait_s = self._core.failed(failure, now, back_off_s=self._endpoints.wait_s(now))
        if self._on_retry is not None and not self._core.ended:
            outage_s = self._core.outage_s(now)
            retry = retry_of(failure, method=self._method, endpoint=self._address, outage_s=outage_s, wait_s=wait_s)
            self._on_retry(retry)
        return wait_s

    def hang_up(self) -> None:
        """Ends the open call, if there is one."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
