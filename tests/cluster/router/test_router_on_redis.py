"""The router's parts together: all of them are closed, however far the start has come. Redis is away."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_on_redis import router_on_redis


def _config(folder: Path, **changes: Any) -> RouterConfig:
    fields: dict[str, Any] = {
        "port": 0,
        "redis_url": f"unix://{folder}/nobody.sock",
        "terms": QueueTerms.short(),
        "cache_folder": str(folder),
    }
    return RouterConfig(**(fields | changes))


def _other_tasks() -> set[Any]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_it_answers_while_the_block_lasts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = _other_tasks()

    async with (
        router_on_redis(_config(tmp_path), {}) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        health: Any = HealthStub(channel)
        told = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)

    assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert _other_tasks() <= before


async def test_a_start_that_fails_at_its_last_step_leaves_nothing_behind(tmp_path: Path) -> None:
    before = _other_tasks()

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="the port is taken"):
        async with router_on_redis(_config(tmp_path, port=taken.getsockname()[1]), {}):
            pass

    assert _other_tasks() <= before
