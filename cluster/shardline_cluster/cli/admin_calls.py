"""How a command speaks to the Admin service: one router that answers, one try, and failures in words for people."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from shardline.channels import CALL_TIMEOUT_S, failure_of
from shardline_cluster.cli.router_address import answering_endpoint, router_address
from shardline_protos.admin_pb2_grpc import AdminStub


class AdminCalls:
    """The Admin service of one router."""

    def __init__(self, stub: Any, *, address: str) -> None:
        self._stub = stub
        self._address = address

    def call(self, method: str, request: Any) -> Any:
        """The answer of a method. Tried once: not every call may be made twice.

        Raises:
            shardline.errors.ShardlineError: it failed.
        """
        try:
            return getattr(self._stub, method)(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise failure_of(error, method=method, address=self._address).of_bounded_call().error() from None

    def stream(self, method: str, request: Any) -> Iterator[Any]:
        """The answers of a method that tells what it does meanwhile, for as long as it takes. Raises as `call`."""
        try:
            yield from getattr(self._stub, method)(request)
        except grpc.RpcError as error:
            raise failure_of(error, method=method, address=self._address).error() from None


@contextmanager
def admin_calls(arguments: argparse.Namespace) -> Iterator[AdminCalls]:
    """The Admin service of a router that answers now, found and shown a key as the flags say.

    Raises:
        NoRouterError: none does.
        ConfigurationError: no address is known.
    """
    address = router_address(arguments)
    endpoint = answering_endpoint(address)
    channels = address.channels()
    try:
        stub = AdminStub(channels.to(endpoint))  # type: ignore[no-untyped-call]
        yield AdminCalls(stub, address=endpoint)
    finally:
        for channel in channels.close():
            channel.close()
