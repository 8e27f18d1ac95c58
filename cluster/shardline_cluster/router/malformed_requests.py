"""Bytes that are no message of the protocol: refused as the client's fault, as every other wrong field is.

grpc.aio calls a request that it cannot parse UNKNOWN and logs a traceback: clients would try it again for ever, and a
stranger could fill the log. One that is too long it calls RESOURCE_EXHAUSTED, as if it could be sent again later.
"""

import inspect
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from shardline_cluster.errors import InvalidRequestError

MAX_REQUEST_BYTES = 16 << 20

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Malformed:
    """What stands in the place of a request that could not be parsed, or is too long to be."""

    why: str


class MalformedRequests(grpc.aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT in the place of the methods of some services.

    A method that reads a stream of requests gets an InvalidRequestError from it instead, which `ServiceShell` answers.
    """

    def __init__(self, services: Mapping[str, int], *, on_refused: Callable[[], None] = lambda: None) -> None:
        """`services`: their full names, and how many bytes a request may have. `on_refused` hears of each request that
        no service gets to see.
        """
        self._services = services
        self._on_refused = on_refused

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, behind a look at the bytes."""
        handler = await continuation(handler_call_details)
        most_bytes = self._services.get(handler_call_details.method.lstrip("/").partition("/")[0])
        if handler is None or most_bytes is None:
            return handler
        make, behaviour = _kind_of(handler, self._on_refused)
        return make(
            behaviour,
            request_deserializer=_parsing(handler.request_deserializer, most_bytes),
            response_serializer=handler.response_serializer,
        )


def _parsing(parse: Callable[[bytes], Any], most_bytes: int) -> Callable[[bytes], Any]:
    def parse_or_say_why(message: bytes) -> Any:
        if len(message) > most_bytes:
            return Malformed(f"the request has {len(message)} bytes, but at most {most_bytes} are allowed: shorten it")
        try:
            return parse(message)
        except DecodeError as error:
            return Malformed(
                f"the request is malformed: {error}; send it as the service's .proto file says, strings in UTF-8"
            )

    return parse_or_say_why


def _kind_of(handler: Any, on_refused: Callable[[], None]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How a handler like this one is made, and what it does, without malformed requests."""
    if handler.request_streaming:
        assert handler.response_streaming, "no service has a method that answers a stream of requests with one message"
        generates = inspect.isasyncgenfunction(handler.stream_stream)
        reading = _generating(handler.stream_stream, on_refused) if generates else _reading(handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler, reading
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, _refusing(handler.unary_stream, on_refused)
    return grpc.unary_unary_rpc_method_handler, _refusing(handler.unary_unary, on_refused)


def _refusing(behaviour: Behaviour, on_refused: Callable[[], None]) -> Behaviour:
    async def behave(request: Any, context: Context) -> Any:
        if isinstance(request, Malformed):
            on_refused()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.why)
        try:
            return await behaviour(request, context)
        except Exception as error:
            request = None
            _forget_calls(error)
            raise

    return behave


def _forget_calls(error: BaseException | None) -> None:
    """Takes from an error what the calls held that it came through, the request above all.

    grpc.aio keeps the error of an abort with the call, and the error's traceback keeps the call: a circle, which would
    keep every refused request in memory until the garbage collector looks through everything there is.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _reading(behaviour: Behaviour) -> Behaviour:
    async def behave(requests: AsyncIterator[Any], context: Context) -> Any:
        return await behaviour(_well_formed(requests), context)

    return behave


def _generating(
    behaviour: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]], on_refused: Callable[[], None]
) -> Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]:
    """A method that gives its answers away, such as reflection's: nobody around it tells an error."""

    async def behave(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        try:
            async for answer in behaviour(_well_formed(requests), context):
                yield answer
        except InvalidRequestError as error:
            on_refused()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    return behave


async def _well_formed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Malformed):
            raise InvalidRequestError(request.why, field="request")
        yield request
