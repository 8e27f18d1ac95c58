"""Processes are killed in mid-stream, and clients notice nothing but a pause."""

import asyncio
import os
import signal

import pytest

from shardline import AsyncClient
from shardline.results import FinishReason, RequestState
from tests.end_to_end.served_cluster import LOCAL_REPLICA, ROUTER, ServedCluster, served_cluster
from tests.end_to_end.streams import Heard, hear, whole_answer

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.02")
EMOJI = "Snow ❄️ and a family 👨‍👩‍👧‍👦 wave 👋🏽 at the END of the story 🎉"


def _kill_routers_with_clients(cluster: ServedCluster) -> int:
    killed = cluster.routers_with_clients()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return len(killed)


async def test_a_router_dies_within_an_emoji_and_within_a_stop_string() -> None:
    replay = ("--simulated-tokens", "replay", "--simulated-replay-text", EMOJI)
    with served_cluster(*SIMULATED, *replay, "--routers", "2") as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            heard, cuts = Heard(), list[int]()
            async with client.stream("tell", max_tokens=200, stop=["END of the world", "END of the story"]) as stream:
                for cut in (6, 40, len(EMOJI.encode().partition(b"END")[0]) + 8):
                    await hear(stream, until_tokens=cut, into=heard)
                    cuts.append(_kill_routers_with_clients(cluster))
                await hear(stream, into=heard)

    assert all(cuts), "a cut met no router"

    assert heard.texts == {0: EMOJI.partition("END of the story")[0]}
    assert heard.finished is not None
    assert heard.finished.state is RequestState.DONE
    assert heard.finished.sequences[0].finish_reason is FinishReason.STOP
    assert heard.finished.sequences[0].stop == "END of the story"


async def test_a_replica_dies_and_another_life_goes_on_at_the_exact_token() -> None:
    with served_cluster(*SIMULATED) as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            expected = await whole_answer(client, "tell", max_tokens=80, seed=7)
            heard = Heard()
            async with client.stream("tell", max_tokens=80, seed=7) as stream:
                await hear(stream, until_tokens=20, into=heard)
                for pid in cluster.pids(LOCAL_REPLICA):
                    os.kill(pid, signal.SIGKILL)
                await hear(stream, into=heard)

    assert heard.ids == expected.ids
    assert heard.texts == expected.texts


async def test_redis_is_killed_and_comes_back() -> None:
    with served_cluster(*SIMULATED) as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            expected = await whole_answer(client, "tell", max_tokens=80, seed=7)
            heard = Heard()
            async with client.stream("tell", max_tokens=80, seed=7) as stream:
                await hear(stream, until_tokens=20, into=heard)
                os.kill(cluster.redis_pid(), signal.SIGKILL)
                await hear(stream, into=heard)

    assert heard.ids == expected.ids
    assert heard.finished == _expected_end(heard, expected)


async def test_redis_comes_back_without_its_last_second() -> None:
    with served_cluster(*SIMULATED, "--simulated-tokens", "per-incarnation") as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            heard, later = Heard(), Heard()
            async with client.stream("tell", max_tokens=150) as stream:
                await hear(stream, until_tokens=20, into=heard)
                log = next(cluster.redis_folder.rglob("*.incr.aof"))
                kept = log.stat().st_size
                await hear(stream, until_tokens=70, into=heard)
                async with client.stream("asked within the last second", max_tokens=20) as second:
                    await hear(second, until_tokens=2, into=later)
                    os.kill(cluster.process.pid, signal.SIGSTOP)  # or it would restart Redis before the cut
                    os.kill(cluster.redis_pid(), signal.SIGKILL)
                    assert log.stat().st_size > kept, "the cut would cut nothing"
                    os.truncate(log, kept)
                    os.kill(cluster.process.pid, signal.SIGCONT)
                    await asyncio.gather(hear(stream, into=heard), hear(second, into=later))
                    logged = await client.get_request(str(stream.request_id))

    assert heard.num_tokens == 150
    assert later.num_tokens == 20
    assert list(logged.outputs[0].token_ids) == heard.ids[0]


def _expected_end(heard: Heard, expected: Heard) -> object:
    """The end of one request, told as the end of another of the same text."""
    assert heard.finished is not None and expected.finished is not None
    return type(heard.finished)(
        request_id=heard.finished.request_id,
        cursor=heard.finished.cursor,
        state=expected.finished.state,
        sequences=expected.finished.sequences,
        usage=expected.finished.usage,
        error=expected.finished.error,
    )


async def test_serve_is_killed_and_nothing_of_it_lives_on() -> None:
    with served_cluster(*SIMULATED, "--routers", "2", "--replicas", "2") as cluster:
        assert len(cluster.pids(ROUTER)) == 2

        cluster.process.kill()
        cluster.process.wait()

        cluster.wait_until(lambda: not cluster.all_pids(), "the end of all processes", within_s=10)


async def test_two_clusters_live_side_by_side() -> None:
    with served_cluster(*SIMULATED) as one, served_cluster(*SIMULATED) as two:
        assert one.redis_folder != two.redis_folder
        async with AsyncClient(one.endpoint) as first, AsyncClient(two.endpoint) as second:
            answers = await asyncio.gather(
                whole_answer(first, "tell", max_tokens=10, seed=1), whole_answer(second, "tell", max_tokens=10, seed=1)
            )

    assert answers[0].texts == answers[1].texts
