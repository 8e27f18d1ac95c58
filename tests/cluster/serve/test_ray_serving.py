"""`serve` over Ray: the head dies or hangs, replicas and streams do not notice, and what dies meanwhile is replaced."""

import os
import signal

import pytest

pytest.importorskip("ray")

from shardline import AsyncClient
from tests.end_to_end.served_cluster import ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear, whole_answer

pytestmark = [
    pytest.mark.ray,
    pytest.mark.process,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.timeout(150),
]

SIMULATED = ("--engine", "simulated", "--launcher", "ray", "--simulated-step-s", "0.02")
REPLICA = "ray::ReplicaActor"
CONTROLLER = "ray::ControllerActor"


def _kill(cluster: ServedCluster, words: str) -> int:
    pid = cluster.pids(words)[0]
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_rays_head_dies_in_mid_stream_and_a_replica_that_dies_afterwards_is_placed_again() -> None:
    with served_cluster(*SIMULATED) as cluster:
        async with AsyncClient(cluster.endpoint, patience_s=120) as client:
            expected = await whole_answer(client, "tell", max_tokens=150, seed=7)
            heard = Heard()
            async with client.stream("tell", max_tokens=150, seed=7) as stream:
                await hear(stream, until_tokens=20, into=heard)
                _kill(cluster, "gcs_server")
                await hear(stream, until_tokens=60, into=heard)
                first = _kill(cluster, REPLICA)
                await hear(stream, into=heard)
            second, log = cluster.pids(REPLICA), cluster.log

    assert heard.ids == expected.ids
    assert second != [first]
    assert "Ray head exited" in log


async def test_the_controllers_actor_dies_and_its_next_life_leaves_replicas_alone_but_replaces_dead_ones() -> None:
    with served_cluster(*SIMULATED, "--replicas", "2") as cluster:
        before = set(cluster.pids(REPLICA))

        first = _kill(cluster, CONTROLLER)
        cluster.wait_until(lambda: set(cluster.pids(CONTROLLER)) - {first} != set(), "another controller")
        victim = _kill(cluster, REPLICA)
        cluster.wait_until(lambda: len(set(cluster.pids(REPLICA)) - {victim}) == 2, "another replica")
        after = set(cluster.pids(REPLICA))

    assert len(before) == 2
    assert before - {victim} <= after
