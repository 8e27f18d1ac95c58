"""Many requests, and processes killed at random: every request ends once, and as its client saw it.

The engines speak audit tokens: no two generations agree in a token, and each token tells its parent, so that a mixed or
doubled text cannot hide.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress

import pytest

from shardline import AsyncClient
from shardline.results import RequestState
from shardline_workers.simulated_tokens import check_chain
from tests.end_to_end.served_cluster import LOCAL_REPLICA, ROUTER, ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

NUM_REQUESTS = int(os.environ.get("SHARDLINE_CHAOS_REQUESTS", "200"))
NUM_KILLS = int(os.environ.get("SHARDLINE_CHAOS_KILLS", "10"))
SEED = int(os.environ.get("SHARDLINE_CHAOS_SEED", "1"))
AT_ONCE = 40
PAUSE_S = (0.3, 2.0)  # between two kills: a new life needs about a second


async def test_every_request_ends_once_and_as_its_client_saw_it() -> None:
    arguments = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.02", "--max-num-seqs", "16")
    audited = ("--simulated-tokens", "per-incarnation", "--replicas", "4", "--routers", "2")
    with served_cluster(*arguments, *audited) as cluster:
        async with AsyncClient(cluster.endpoint, patience_s=120) as client:
            killed = Counter[str]()
            killer = asyncio.create_task(_kill_at_random(cluster, random.Random(SEED), killed))
            turns = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(_one_request(client, turns, number) for number in range(NUM_REQUESTS)))
            killer.cancel()
            with suppress(asyncio.CancelledError):
                await killer
            models = await client.models()

    print("killed: " + ", ".join(f"{count} × {kind}" for kind, count in sorted(killed.items())))
    assert killed.total() >= 3, "the requests were over before anything was killed"
    assert [(m.waiting_requests, m.running_requests) for m in models] == [(0, 0)]


async def _one_request(client: AsyncClient, turns: asyncio.Semaphore, number: int) -> None:
    prompt, wanted = f"request {number}", 20 + number % 60
    async with turns:
        prompt_ids = (await client.tokenize(prompt)).token_ids
        async with client.stream(prompt, max_tokens=wanted, ignore_eos=True) as stream:
            heard = await hear(stream)
        status = await client.get_request(str(stream.request_id))

    _judge(heard, prompt_ids, wanted)
    assert status.state is RequestState.DONE
    assert list(status.outputs[0].token_ids) == heard.ids[0]


def _judge(heard: Heard, prompt_ids: tuple[int, ...], wanted: int) -> None:
    assert heard.finished is not None
    assert heard.finished.state is RequestState.DONE, heard.finished
    assert len(heard.ids[0]) == wanted
    assert check_chain(prompt_ids, heard.ids[0]) is None, "tokens of two generations are mixed"


async def _kill_at_random(cluster: ServedCluster, chance: random.Random, killed: Counter[str]) -> None:
    for _ in range(NUM_KILLS):
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        kind = chance.choice(("replica", "replica", "replica", "router", "redis"))
        victims = cluster.pids(_words(cluster, kind))
        with suppress(ProcessLookupError):  # it may just have ended by itself
            if victims:
                os.kill(chance.choice(victims), signal.SIGKILL)
                killed[kind] += 1


def _words(cluster: ServedCluster, kind: str) -> str:
    words = {"replica": LOCAL_REPLICA, "router": ROUTER, "redis": str(cluster.redis_folder / "redis.sock")}
    return words[kind]
