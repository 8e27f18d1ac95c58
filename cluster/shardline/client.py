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

from shardline.call_attempts import CallAttempts
from shardline.channels import (
    CALL_TIMEOUT_S,
    FORGET_TIMEOUT_S,
    HEALTH_METHOD,
    SERVICE,
    deadline_after,
    decode_health,
    encode_health_check,
    failure_of,
    sync_channels,
    unreachable,
)
from shardline.completion_stream import CompletionStream
from shardline.decoding import decode_cancel, decode_model, decode_status, decode_tokenization
from shardline.endpoints import Endpoints
from shardline.errors import ServerError, StreamClosedError
from shardline.patience import Patience, RetryLimits
from shardline.requests import (
    Messages,
    Prompt,
    RequestOptions,
    chat_of,
    chat_request,
    detokenize_request,
    text_request,
    tokenize_request,
)
from shardline.results import (
    Accepted,
    CancelResult,
    Completion,
    EndpointHealth,
    ModelInfo,
    RequestStatus,
    Tokenization,
)
from shardline.retries import OnRetry
from shardline.stream_attempts import StreamAttempts
from shardline.tls_options import TlsOptions
from shardline.token_stream import TokenStream
from shardline.trace_context import trace_metadata
from shardline_protos import generation_pb2 as pb


class Client:
    """A cluster, through one or several of its routers.

    `endpoints` are their addresses: `host:port`, `[ipv6]:port` or `unix:path`. A call is tried again, at all of them in
    turn, until it was without a connection and without progress for `patience_s`; a router that asks to come again
    later is obeyed `max_refusals` times. `api_key` is shown with every call, over plain text too unless `tls` says
    otherwise: True trusts the CAs of this system, `TlsOptions` name others. `on_retry` hears of each try that will be
    followed by another one.

    Raises:
        InvalidArgumentError: an address, the key, or a file of `tls` is none.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = "127.0.0.1:50051",
        *,
        patience_s: float = 60.0,
        max_refusals: int = 3,
        api_key: str | None = None,
        tls: TlsOptions | bool = False,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._endpoints = Endpoints(endpoints)
        self._on_retry = on_retry
        self._limits = RetryLimits(patience_s=patience_s, max_refusals=max_refusals)
        self._channels = sync_channels(api_key=api_key, tls=tls)
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
        return self._stream(text_request(prompt, model, options), options)

    def stream_chat(
        self, messages: Messages, *, model: str = "", **options: Unpack[RequestOptions]
    ) -> CompletionStream:
        """The assistant's next turn as a stream of events."""
        return self._stream(chat_request(messages, model, options), options)

    def submit(self, prompt: Prompt, *, model: str = "", **options: Unpack[RequestOptions]) -> Accepted:
        """Hands a request over for the background; `resume` or `get_request` with its id bring the result."""
        return self._submit(text_request(prompt, model, options, background=True), options)

    def submit_chat(self, messages: Messages, *, model: str = "", **options: Unpack[RequestOptions]) -> Accepted:
        """Hands a conversation over for the background."""
        return self._submit(chat_request(messages, model, options, background=True), options)

    def resume(self, request_id: str, cursor: bytes = b"") -> CompletionStream:
        """The rest of a request after a cursor, or all of it; its completion holds only what comes after."""
        return self._stream(pb.ResumeRequest(request_id=request_id, cursor=cursor), {})

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
        request = tokenize_request(text, model, add_special_tokens=add_special_tokens)
        return decode_tokenization(self._call("Tokenize", request))

    def tokenize_chat(self, messages: Messages, *, model: str = "") -> Tokenization:
        """The tokens of a conversation as the model's template renders it."""
        request = pb.TokenizeRequest(model=model, chat=chat_of(messages))
        return decode_tokenization(self._call("Tokenize", request))

    def detokenize(self, token_ids: Sequence[int], *, model: str = "", skip_special_tokens: bool | None = None) -> str:
        """The text of token ids."""
        request = detokenize_request(token_ids, model, skip_special_tokens=skip_special_tokens)
        return str(self._call("Detokenize", request).text)

    def health(self, *, timeout_s: float = 5.0) -> tuple[EndpointHealth, ...]:
        """What each router says of itself, those that do not answer included."""
        checks = [(address, self._check(address, timeout_s)) for address in self._endpoints.addresses]
        return tuple(self._health(address, check) for address, check in checks)

    # --- life ---

    def close(self) -> None:
        """Closes all connections; streams that are being read end with StreamClosedError."""
        self._closing.set()
        for channel in self._channels.close():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside ---

    def _stream(self, request: pb.GenerateRequest | pb.ResumeRequest, options: RequestOptions) -> CompletionStream:
        core = TokenStream(request, Patience(self._limits, deadline=deadline_after(options.get("timeout_s"))))
        metadata = trace_metadata(options.get("traceparent"))
        attempts = StreamAttempts(core, self._endpoints, self._channels, metadata=metadata, on_retry=self._on_retry)
        return CompletionStream(core, attempts, cancel=self.cancel, forget=self._forget_once)

    def _submit(self, request: pb.GenerateRequest, options: RequestOptions) -> Accepted:
        with self._stream(request, options) as stream:
            for event in stream:
                if isinstance(event, Accepted):
                    return event
        raise ServerError("the router ended the stream of a background request without accepting it")

    def _forget_once(self, request_id: str) -> None:
        """Tells a router that the end was read. Where none hears it, the cluster forgets a little later by itself."""
        with contextlib.suppress(grpc.RpcError):
            stub = self._channels.stub(self._endpoints.choose(time.monotonic()))
            stub.Forget(pb.ForgetRequest(request_id=request_id), timeout=FORGET_TIMEOUT_S)

    def _call(self, method: str, request: Any) -> Any:
        """One call that may be repeated at will, tried until it is answered or patience is over."""
        attempts = CallAttempts(self._endpoints, Patience(self._limits), method=method, on_retry=self._on_retry)
        while True:
            stub = self._channels.stub(attempts.next_address())
            try:
                response = getattr(stub, method)(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                failure = self._channels.examined(attempts.address, attempts.failure(error))
                if self._closing.wait(attempts.ended(failure)):
                    raise StreamClosedError("the client was closed") from None
            else:
                attempts.succeeded()
                return response

    def _check(self, address: str, timeout_s: float) -> Any:
        """Begins to ask a router for its health."""
        check: Any = self._channels.to(address).unary_unary(HEALTH_METHOD)
        return check.future(encode_health_check(SERVICE), timeout=timeout_s)

    def _health(self, address: str, check: Any) -> EndpointHealth:
        try:
            return decode_health(address, check.result())
        except grpc.RpcError as error:
            failure = failure_of(error, method="Check", address=address)
            return unreachable(address, self._channels.examined(address, failure))
