"""What tests of the router's services do with a call: begin it, wait for it, and read how it failed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_cluster.queue.answers import Snapshot
from shardline_cluster.queue.records import RequestState
from shardline_protos import generation_pb2 as pb
from shardline_protos.status_details_pb2 import Status
from tests.cluster.router.router_bench import (
    RouterBench,
    RunningRouter,
    next_of_kind,
    read_all,
)


async def begun(bench: RouterBench, router: RunningRouter, ask: pb.GenerateRequest) -> tuple[Any, str]:
    """A stream whose request was accepted and claimed."""
    stream = router.stub.Generate(ask)
    await next_of_kind(stream, "queued")
    request_id = await bench.claim()
    await next_of_kind(stream, "started")
    return stream, request_id


async def eventually(holds: Callable[[], Awaitable[bool]], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not await holds():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def state_of(bench: RouterBench, request_id: str) -> RequestState | None:
    value = (await bench.queue().look(request_id, "default")).value
    return value.state if isinstance(value, Snapshot) else None


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (read_all(call) if hasattr(call, "read") else call)
    return raised.value


def trailing(error: grpc.aio.AioRpcError, key: str) -> str | bytes | None:
    return dict(error.trailing_metadata()).get(key)


def details_of(error: grpc.aio.AioRpcError) -> Status:
    packed = trailing(error, "grpc-status-details-bin")
    assert isinstance(packed, bytes)
    return Status.FromString(packed)
