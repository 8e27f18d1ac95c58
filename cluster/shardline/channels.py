"""gRPC as both clients use it: options of a connection, one channel for each router, failures in our words."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from shardline.call_failure import CallFailure
from shardline.errors import StreamClosedError
from shardline.handshake import probed_reason, told_reason
from shardline.keyed_channel import KeyedChannel, checked_key
from shardline.results import EndpointHealth
from shardline.tls_options import TlsOptions
from shardline_protos.generation_pb2_grpc import GenerationStub

C = TypeVar("C")  # a channel, of either flavour

SERVICE = "shardline.v1.Generation"
# A call that is no stream and takes longer than this is lost, whatever the connection says.
CALL_TIMEOUT_S = 20.0
# A courtesy that nobody waits for longer.
FORGET_TIMEOUT_S = 2.0
# The router hears of the request's own timeout; a call's limit must not be what ends it.
DEADLINE_MARGIN_S = 5.0

PING_AFTER_MS = 10_000  # without a word of the router
PING_TIMEOUT_MS = 10_000


def keepalive_options(*, ping_after_ms: int, ping_timeout_ms: int) -> tuple[tuple[str, int], ...]:
    """A dead or hung router is noticed within the sum of both, even where its host vanished without a word."""
    return (
        ("grpc.keepalive_time_ms", ping_after_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),  # counts as well, and is a minute unless told otherwise
        ("grpc.http2.max_pings_without_data", 0),
    )


CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *keepalive_options(ping_after_ms=PING_AFTER_MS, ping_timeout_ms=PING_TIMEOUT_MS),
    # A router that comes back on its address is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Retries are ours: only we know the idempotency key and the cursor.
    ("grpc.enable_retries", 0),
    # A resumed stream may bring a long text in one message.
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    # Connections of one client die with it and are shared with no other.
    ("grpc.use_local_subchannel_pool", 1),
)


class RouterChannels(Generic[C]):
    """One channel to each router, opened when it is first asked for. Safe to share between threads."""

    def __init__(
        self, insecure: Callable[..., C], secure: Callable[..., C], *, api_key: str | None, tls: TlsOptions | bool
    ) -> None:
        """`insecure` and `secure` are gRPC's own openers, of either flavour. Raises as `Client`."""
        self._insecure = insecure
        self._secure = secure
        self._api_key = None if api_key is None else checked_key(api_key)
        self._tls = TlsOptions() if tls is True else tls or None
        self._credentials = None if self._tls is None else self._tls.channel_credentials()
        self._open: dict[str, C] = {}
        self._closed = False
        self._lock = threading.Lock()

    def stub(self, address: str) -> Any:
        """The service of a router; its methods are those of the protobuf service.

        Raises:
            StreamClosedError: the client is closed.
        """
        return GenerationStub(self.to(address))  # type: ignore[no-untyped-call]

    def to(self, address: str) -> C:
        """The channel to a router; shows the API key with every call. Raises as `stub`."""
        with self._lock:
            if self._closed:
                raise StreamClosedError("the client is closed")
            if address not in self._open:
                self._open[address] = self._opened(address)
            return self._open[address]

    def examined(self, address: str, failure: CallFailure) -> CallFailure:
        """The failure, with its reason where TLS was it. Looks at a router that hung up, for some seconds at most."""
        return failure.rejected(address, probed_reason(address, self._tls)) if failure.hung_up else failure

    def close(self) -> list[C]:
        """Opens none any more; returns those that were open, which are the caller's to close."""
        with self._lock:
            self._closed = True
            channels, self._open = list(self._open.values()), {}
        return channels

    def _opened(self, address: str) -> C:
        channel = self._channel(address)
        return channel if self._api_key is None else cast("C", KeyedChannel(channel, self._api_key))

    def _channel(self, address: str) -> C:
        if self._tls is None:
            return self._insecure(address, options=CHANNEL_OPTIONS)
        name = self._tls.server_name
        override = () if name is None else (("grpc.ssl_target_name_override", name),)
        return self._secure(address, self._credentials, options=(*CHANNEL_OPTIONS, *override))


def sync_channels(*, api_key: str | None, tls: TlsOptions | bool) -> RouterChannels[grpc.Channel]:
    """Channels for programs without an event loop. Raises as `Client`."""
    return RouterChannels(grpc.insecure_channel, grpc.secure_channel, api_key=api_key, tls=tls)


def deadline_after(timeout_s: float | None) -> float | None:
    """The instant after which no try of a request makes sense that has so long; None: there is none."""
    return None if timeout_s is None else time.monotonic() + timeout_s + DEADLINE_MARGIN_S


def failure_of(error: Any, *, method: str, address: str) -> CallFailure:
    """A gRPC error of either flavour in our words. `retry-after-ms` is the router's wish, in its trailing metadata."""
    failure = CallFailure(
        error.code().name,
        error.details() or "",
        retry_after_s=_retry_after_s(error.trailing_metadata() or ()),
        method=method,
    )
    return failure.rejected(address, told_reason(failure.details) if failure.lost else "")


def _retry_after_s(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    for key, value in metadata:
        if key == "retry-after-ms":
            try:
                return max(0.0, int(value) / 1000)
            except ValueError:
                return None
    return None


# grpc.health.v1 without its package: both messages are one field, as are the well-known wrappers of the same bytes.

HEALTH_METHOD = "/grpc.health.v1.Health/Check"
_HEALTH_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def encode_health_check(service: str) -> bytes:
    """A HealthCheckRequest."""
    return StringValue(value=service).SerializeToString()


def decode_health(endpoint: str, response: bytes) -> EndpointHealth:
    """A HealthCheckResponse of this router."""
    status = Int32Value.FromString(response).value
    return EndpointHealth(endpoint, _HEALTH_STATUSES.get(status, str(status)))


def unreachable(endpoint: str, failure: CallFailure) -> EndpointHealth:
    """The health of a router that did not answer."""
    if failure.rejection:
        return EndpointHealth(endpoint, "REJECTED", failure.rejection)
    return EndpointHealth(endpoint, "UNREACHABLE", f"{failure.code}: {failure.details}")
