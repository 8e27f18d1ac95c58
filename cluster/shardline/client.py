"""The client for programs without an event loop.

    from shardline import Client

    with Client(["10.0.0.1:50051", "10.0.0.2:50051"]) as client:
        for event in client.stream("Once upon a time", max_tokens=64):
            ...

Safe to share between threads; each stream belongs to one reader.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from shardline.channels import (
    CALL_TIMEOUT_S,
    CHANNEL_OPTIONS,
    DEADLINE_MARGIN_S,
    FORGET_TIMEOUT_S,
    HEALTH_METHOD,
    SERVICE,
    decode_health,
    encode_health_check,
    failure_of,
    make_stub,
    unreachable,
)
from shardline.completion_stream import CompletionStream
from shardline.decoding import decode_cancel, decode_model, decode_status
from shardline.endpoints import Endpoints
from shardline.errors import ServerError, StreamClosedError
from shardline.patience import Patience, RetryLimits
from shardline.requests import Messages, Prompt, RequestOptions, chat_of, chat_request, text_request
from shardline.results import (
    Accepted,
    CancelResult,
    Completion,
    EndpointHealth,
    ModelInfo,
    RequestStatus,
    Tokenization,
)
from shardline.token_stream import TokenStream
from shardline_protos import generation_pb2 as pb


class Client:
    """A cluster, through one or several of its routers.

    `endpoints` are their addresses: `host:port`, `[ipv6]:port` or `unix:path`. A call is tried again, at all of them in
    turn, until it was without a connection and without progress for `patience_s`; a router that asks to come again
    later is obeyed `max_refusals` times.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = "127.0.0.1:50051",
        *,
        patience_s: float = 60.0,
        max_refusals: int = 3,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._endpoints = Endpoints(endpoints)
        self._limits = RetryLimits(patience_s=patience_s, max_refusals=max_refusals)
        self._credentials = credentials
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    # --- generating ---

    def generate(self, prompt: Prompt, *, model: str = "", **options: Unpack[RequestOptions]) -> Completion:
        """Continues a text, or token ids, and returns the whole completion.

        Raises:
            NotCompletedError: the request ended as CANCELLED, EXPIRED or FAILED.
            ShardlineError: it was not accepted, or no router answered any more.
        """
        with self.stream(prompt, model=model, **options) as stream:
            return stream.result()

    def chat(self, messages: Messages, *, model: str = "", **options: Unpack[RequestOptions]) -> Completion:
        """The assistant's next turn as a whole. Raises as `generate`."""
        with self.stream_chat(messages, model=model, **options) as stream:
            return stream.result()

    def stream(self, prompt: Prompt, *, model: str = "", **options: Unpack[RequestOptions]) -> CompletionStream:
        """Continues a text, or token ids, as a stream of events."""
        return self._stream(text_request(prompt, model, options), options.get("timeout_s"))

    def stream_chat(
        self, messages: Messages, *, model: str = "", **options: Unpack[RequestOptions]
    ) -> CompletionStream:
        """The assistant's next turn as a stream of events."""
        return self._stream(chat_request(messages, model, options), options.get("timeout_s"))

    def submit(self, prompt: Prompt, *, model: str = "", **options: Unpack[RequestOptions]) -> Accepted:
        """Hands a request over for the background; `resume` or `get_request` with its id bring the result."""
        return self._submit(text_request(prompt, model, options, background=True), options.get("timeout_s"))

    def submit_chat(self, messages: Messages, *, model: str = "", **options: Unpack[RequestOptions]) -> Accepted:
        """Hands a conversation over for the background."""
        return self._submit(chat_request(messages, model, options, background=True), options.get("timeout_s"))

    def resume(self, request_id: str, cursor: bytes = b"") -> CompletionStream:
        """The rest of a request after a cursor, or all of it; its completion holds only what comes after."""
        return self._stream(pb.ResumeRequest(request_id=request_id, cursor=cursor), None)

    # --- requests ---

    def cancel(self, request_id: str) -> CancelResult:
        """Ends a request, or tells the end that it has."""
        return decode_cancel(self._call("Cancel", pb.CancelRequest(request_id=request_id)))

    def get_request(self, request_id: str) -> RequestStatus:
        """A request's state, and all that it has generated so far."""
        return decode_status(self._call("GetRequest", pb.GetRequestRequest(request_id=request_id)))

    def forget(self, request_id: str) -> None:
        """Deletes an ended request with its tokens."""
        self._call("Forget", pb.ForgetRequest(request_id=request_id))

    # --- models ---

    def models(self) -> tuple[ModelInfo, ...]:
        """The deployed models."""
        return tuple(decode_model(model) for model in self._call("ListModels", pb.ListModelsRequest()).models)

    def tokenize(self, text: str, *, model: str = "", add_special_tokens: bool | None = None) -> Tokenization:
        """A text's tokens."""
        request = pb.TokenizeRequest(model=model, text=text, add_special_tokens=add_special_tokens)
        return _tokenization(self._call("Tokenize", request))

    def tokenize_chat(self, messages: Messages, *, model: str = "") -> Tokenization:
        """The tokens of a conversation as the model's template renders it."""
        return _tokenization(self._call("Tokenize", pb.TokenizeRequest(model=model, chat=chat_of(messages))))

    def detokenize(self, token_ids: Sequence[int], *, model: str = "", skip_special_tokens: bool | None = None) -> str:
        """The text of token ids."""
        request = pb.DetokenizeRequest(model=model, token_ids=token_ids, skip_special_tokens=skip_special_tokens)
        return str(self._call("Detokenize", request).text)

    def health(self, *, timeout_s: float = 5.0) -> tuple[EndpointHealth, ...]:
        """What each router says of itself, those that do not answer included."""
        return tuple(self._check(address, timeout_s) for address in self._endpoints.addresses)

    # --- life ---

    def close(self) -> None:
        """Closes all connections; streams that are being read end with StreamClosedError."""
        self._closing.set()
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside ---

    def _stream(self, request: pb.GenerateRequest | pb.ResumeRequest, timeout_s: float | None) -> CompletionStream:
        return CompletionStream(
            TokenStream(request, self._patience(timeout_s)),
            endpoints=self._endpoints,
            connect=self._stub,
            cancel=self.cancel,
            forget=self._forget_once,
        )

    def _submit(self, request: pb.GenerateRequest, timeout_s: float | None) -> Accepted:
        with self._stream(request, timeout_s) as stream:
            for event in stream:
                if isinstance(event, Accepted):
                    return event
        raise ServerError("the router ended the stream of a background request without accepting it")

    def _forget_once(self, request_id: str) -> None:
        """Tells a router that the end was read. Where none hears it, the cluster forgets a little later by itself."""
        with contextlib.suppress(grpc.RpcError):
            stub = self._stub(self._endpoints.choose(time.monotonic()))
            stub.Forget(pb.ForgetRequest(request_id=request_id), timeout=FORGET_TIMEOUT_S)

    def _patience(self, timeout_s: float | None) -> Patience:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s + DEADLINE_MARGIN_S
        return Patience(self._limits, deadline=deadline)

    def _call(self, method: str, request: Any) -> Any:
        """One call that may be repeated at will, tried until it is answered or patience is over."""
        patience = self._patience(None)
        while True:
            opened = time.monotonic()
            address = self._endpoints.choose(opened)
            try:
                response = getattr(self._stub(address), method)(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                failure = failure_of(error, method=method).of_bounded_call()
            else:
                self._endpoints.succeeded(address)
                return response
            now = time.monotonic()
            if failure.lost:
                self._endpoints.failed(address, now)
            back_off_s = self._endpoints.wait_s(now)
            if self._closing.wait(patience.after(failure, opened=now, now=now, back_off_s=back_off_s)):
                raise StreamClosedError("the client was closed")

    def _stub(self, address: str) -> Any:
        return make_stub(self._channel(address))

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            if self._closing.is_set():
                raise StreamClosedError("the client is closed")
            if address not in self._channels:
                self._channels[address] = self._open(address)
            return self._channels[address]

    def _open(self, address: str) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(address, self._credentials, options=CHANNEL_OPTIONS)

    def _check(self, address: str, timeout_s: float) -> EndpointHealth:
        check: Any = self._channel(address).unary_unary(HEALTH_METHOD)
        try:
            return decode_health(address, check(encode_health_check(SERVICE), timeout=timeout_s))
        except grpc.RpcError as error:
            return unreachable(address, error)


def _tokenization(response: pb.TokenizeResponse) -> Tokenization:
    return Tokenization(tuple(response.token_ids), response.max_model_len)
