"""The same promises where Ray places the replicas: nothing that a request waits for goes through Ray."""

import json
import os
import signal
import time

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
    pytest.mark.timeout(240),
]

SIMULATED = ("--engine", "simulated", "--launcher", "ray", "--simulated-step-s", "0.02")
HEAD = "gcs_server"
REPLICA = "ray::ReplicaActor"
CONTROLLER = "ray::ControllerActor"
LARGEST_GAP_S = 2.0  # the lease of these clusters: a pause beyond it would be a reclaim, not a busy machine


def _kill(cluster: ServedCluster, words: str) -> int:
    pid = cluster.pids(words)[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def _replica_pids(cluster: ServedCluster) -> set[int]:
    told = cluster.command("status", "--name", cluster.name, "--json")
    assert told.returncode == 0, told.stderr
    (deployment,) = json.loads(told.stdout)["deployments"]
    return {replica["pid"] for replica in deployment["replicas"] if replica["state"] == "READY"}


async def _hear_timed(stream: object, heard: Heard, *, until_tokens: int) -> float:
    """Reads on, and returns the longest pause between two messages in seconds."""
    longest, last = 0.0, time.monotonic()
    async for event in stream:  # type: ignore[attr-defined]
        heard.take(event)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        if heard.num_tokens >= until_tokens:
            break
    return longest


async def test_head_and_replica_die_and_the_stream_goes_on() -> None:
    with served_cluster(*SIMULATED) as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            expected = await whole_answer(client, "tell", max_tokens=400, seed=7)
            (first_life,) = _replica_pids(cluster)
            heard = Heard()
            async with client.stream("tell", max_tokens=400, seed=7) as stream:
                await hear(stream, until_tokens=20, into=heard)
                _kill(cluster, HEAD)
                gap_s = await _hear_timed(stream, heard, until_tokens=200)
                assert _replica_pids(cluster) == {first_life}, "the replica was touched by the head's death"
                os.kill(first_life, signal.SIGKILL)
                await hear(stream, into=heard)
            second_life, log = _replica_pids(cluster), cluster.log

    assert "Ray head exited" in log
    assert gap_s < LARGEST_GAP_S
    assert heard.ids == expected.ids
    assert heard.texts == expected.texts
    assert second_life and first_life not in second_life


async def test_a_replica_under_ray_dies_and_serve_can_be_killed() -> None:
    with served_cluster(*SIMULATED, "--replicas", "2") as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            expected = await whole_answer(client, "tell", max_tokens=60, seed=7)
            heard = Heard()
            async with client.stream("tell", max_tokens=60, seed=7) as stream:
                await hear(stream, until_tokens=20, into=heard)
                for pid in _replica_pids(cluster):
                    os.kill(pid, signal.SIGKILL)
                await hear(stream, into=heard)

        assert heard.ids == expected.ids
        cluster.process.kill()
        cluster.process.wait()
        cluster.wait_until(lambda: not cluster.all_pids(), "the end of all processes", within_s=15)


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
