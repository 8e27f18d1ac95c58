"""Bytes that are no message of the protocol: refused as the client's fault, as every other wrong field is.

grpc.aio calls a request that it cannot parse UNKNOWN and logs a traceback: clients would try it again for ever, and a
stranger could fill the log. One that is too long it calls RESOURCE_EXHAUSTED, as if it could be sent again later.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
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
    """Answers INVALID_ARGUMENT in the place of the methods of some services, given by their full names.

    A method that reads a stream of requests gets an InvalidRequestError from it instead, which `ServiceShell` answers.
    """

    def __init__(self, *services: str, on_refused: Callable[[], None] = lambda: None) -> None:
        """`on_refused` hears of each request that no service gets to see."""
        self._on_refused = on_refused
        self._prefixes = tuple(f"/{service}/" for service in services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, behind a look at the bytes."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefixes):
            return handler
        make, behaviour = _kind_of(handler, self._on_refused)
        return make(
            behaviour,
            request_deserializer=_parsing(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


def _parsing(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse_or_say_why(message: bytes) -> Any:
        if len(message) > MAX_REQUEST_BYTES:
            return Malformed(
                f"the request has {len(message)} bytes, but at most {MAX_REQUEST_BYTES} are allowed: shorten it"
            )
        try:
            return parse(message)
        except DecodeError as error:
            return Malformed(
                f"the request is malformed: {error}; send it as the service's .proto file says, strings in UTF-8"
            )

    return parse_or_say_why


def _kind_of(handler: Any, on_refused: Callable[[], None]) -> tuple[Callable[..., Any], Behaviour]:
    """How a handler like this one is made, and what it does, without malformed requests."""
    if handler.request_streaming:
        assert handler.response_streaming, "no service has a method that answers a stream of requests with one message"
        return grpc.stream_stream_rpc_method_handler, _reading(handler.stream_stream)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, _refusing(handler.unary_stream, on_refused)
    return grpc.unary_unary_rpc_method_handler, _refusing(handler.unary_unary, on_refused)


def _refusing(behaviour: Behaviour, on_refused: Callable[[], None]) -> Behaviour:
    async def behave(request: Any, context: Context) -> Any:
        if isinstance(request, Malformed):
            on_refused()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.why)
        return await behaviour(request, context)

    return behave


def _reading(behaviour: Behaviour) -> Behaviour:
    async def behave(requests: AsyncIterator[Any], context: Context) -> Any:
        return await behaviour(_well_formed(requests), context)

    return behave


async def _well_formed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Malformed):
            raise InvalidRequestError(request.why, field="request")
        yield request
