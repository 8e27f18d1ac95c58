"""Redis forgets everything while requests run: whoever still knows gives it back, the deployment too."""

import asyncio
import os
import signal
import time

import pytest

from shardline import AsyncClient
from shardline.results import RequestState
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.end_to_end.served_cluster import LOCAL_REPLICA, ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.02")
AUDITED = (*SIMULATED, "--simulated-tokens", "per-incarnation")


async def test_redis_is_emptied_in_mid_stream() -> None:
    with served_cluster(*AUDITED) as cluster:
        connections = RedisConnections(RedisAddress.parse(cluster.run_file.redis_url), size=1, timeout_s=20)
        replicas = cluster.pids(LOCAL_REPLICA)
        async with AsyncClient(cluster.endpoint) as client:
            heard = Heard()
            async with client.stream("tell", max_tokens=100, ignore_eos=True) as stream:
                await hear(stream, until_tokens=20, into=heard)
                await connections.execute("FLUSHALL")
                await hear(stream, into=heard)
            logged = await client.get_request(str(stream.request_id))
            await _deployed_again(cluster, connections)
            later = await client.generate("more", max_tokens=5)
        await connections.close()
        assert cluster.pids(LOCAL_REPLICA) == replicas, "a replica was stopped for a deployment that was only forgotten"

    _assert_whole(heard, 100)
    assert list(logged.outputs[0].token_ids) == heard.ids[0]
    assert later.state is RequestState.DONE


async def test_a_redis_without_a_disk_is_killed_in_mid_stream() -> None:
    with served_cluster(*AUDITED, "--durability", "none") as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            heard = Heard()
            async with client.stream("tell", max_tokens=100, ignore_eos=True) as stream:
                await hear(stream, until_tokens=20, into=heard)
                os.kill(cluster.redis_pid(), signal.SIGKILL)
                await hear(stream, into=heard)

    _assert_whole(heard, 100)


async def _deployed_again(cluster: ServedCluster, connections: RedisConnections) -> None:
    key = f"{cluster.run_file.redis_prefix}:v1:deployments"
    deadline = time.monotonic() + 20
    while not await connections.execute("EXISTS", key):
        assert time.monotonic() < deadline, "the deployment was not put back"
        await asyncio.sleep(0.05)


def _assert_whole(heard: Heard, num_tokens: int) -> None:
    assert heard.num_tokens == num_tokens
    assert heard.finished is not None
    assert heard.finished.state is RequestState.DONE
