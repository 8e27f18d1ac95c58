"""The connection under a router's service."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from shardline_cluster.router.router_server import keepalive_options


class FreezingLink:
    """A connection between a client and a server that can fall silent without closing, as a lost network does."""

    def __init__(self) -> None:
        self.frozen = False
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def to(self, target: int) -> AsyncIterator[None]:
        """Listens, and carries every connection on to this port of this machine."""

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", target)
            self._writers += [writer, onward]
            await asyncio.gather(self._pump(reader, onward), self._pump(onward_reader, writer))

        listener = await asyncio.start_server(carry, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            listener.close()
            for writer in self._writers:
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            if not self.frozen:
                writer.write(chunk)


class Stalling(grpc.GenericRpcHandler):
    """Serves one call that says a word and then waits until it is given up."""

    def __init__(self) -> None:
        self.given_up = asyncio.Event()

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(self._serve)

    async def _serve(self, _request: bytes, context: Any) -> None:
        context.add_done_callback(lambda _: self.given_up.set())
        await context.write(b"a word")
        await self.given_up.wait()


async def test_a_client_whose_network_went_away_is_given_up() -> None:
    stalling, link = Stalling(), FreezingLink()
    options = keepalive_options(ping_after_ms=1_000, ping_timeout_ms=500)

    async with _serving(stalling, options) as target, link.to(target), _channel(link) as channel:
        call: Any = channel.unary_stream("/any/method")
        stream = call(b"")
        assert await stream.read() == b"a word"
        link.frozen = True

        await asyncio.wait_for(stalling.given_up.wait(), 30)  # gRPC's own limit for pings is 60 s
        stream.cancel()


@asynccontextmanager
async def _serving(handler: grpc.GenericRpcHandler, options: Sequence[tuple[str, int]]) -> AsyncIterator[int]:
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def _channel(link: FreezingLink) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{link.port}")
