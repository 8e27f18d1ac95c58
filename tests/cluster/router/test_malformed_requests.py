"""A request that was refused does not stay in memory, whatever grpc.aio keeps of its call."""

import gc
import weakref
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.router.malformed_requests import MalformedRequests


class _Request:
    """Something that a weak reference may watch."""


async def _refusing_server(seen: list[weakref.ref[_Request]]) -> tuple[grpc.aio.Server, int]:
    def parse(_message: bytes) -> _Request:
        request = _Request()
        seen.append(weakref.ref(request))
        return request

    async def refuse(request: _Request, context: Any) -> None:
        try:
            raise ValueError(f"what is wrong with {request}")
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it is wrong")

    server = grpc.aio.server(interceptors=[MalformedRequests({"test.Service": 1 << 20})])
    method: Any = grpc.unary_unary_rpc_method_handler(refuse, request_deserializer=parse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Ask": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def test_a_refused_request_is_let_go_before_the_garbage_collector_comes() -> None:
    seen: list[weakref.ref[_Request]] = []
    server, port = await _refusing_server(seen)
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask: Any = channel.unary_unary("/test.Service/Ask")
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError, match="it is wrong"):
                    await ask(b"")
        await server.stop(0)
        left = [request() for request in seen]
    finally:
        gc.enable()

    assert left == [None, None, None]
