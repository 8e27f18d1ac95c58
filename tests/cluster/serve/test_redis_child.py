"""The embedded Redis comes back on the same data at the same address."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from shardline_cluster.serve.redis_child import EmbeddedRedis

pytestmark = pytest.mark.redis


async def _ask(url: str, *command: str) -> object:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=5.0)
    try:
        return await connections.execute(*command)
    finally:
        await connections.close()


async def _pid(url: str) -> int:
    info = await _ask(url, "INFO", "server")
    assert isinstance(info, bytes)
    return int(info.partition(b"process_id:")[2].split()[0])


async def test_a_killed_server_comes_back_with_its_data() -> None:
    said: list[str] = []
    redis = EmbeddedRedis(Durability.RELAXED, say=said.append)
    await redis.start()
    keeping = asyncio.create_task(redis.keep())
    await _ask(redis.url, "SET", "k", "v")
    first = await _pid(redis.url)

    os.kill(first, signal.SIGKILL)
    value = None
    for _ in range(400):
        try:
            value = await _ask(redis.url, "GET", "k")
            break
        except QueueUnavailableError:
            await asyncio.sleep(0.05)
    second = await _pid(redis.url)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await redis.stop()

    assert value == b"v"
    assert second != first
    assert said[0].startswith("starting Redis: ")
    assert said[1:] == ["Redis was killed by SIGKILL; starting it again on the same data"]


async def test_a_server_that_was_never_started_can_be_stopped() -> None:
    redis = EmbeddedRedis(Durability.NONE, say=lambda _line: None)

    await redis.stop()


async def test_a_server_whose_start_is_called_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    redis = EmbeddedRedis(Durability.NONE, say=lambda _line: None)
    starting = asyncio.create_task(redis.start())
    await asyncio.sleep(0)  # it has begun, and its thread works

    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await redis.stop()

    assert list((tmp_path / "shardline").glob("redis-*")) == []
