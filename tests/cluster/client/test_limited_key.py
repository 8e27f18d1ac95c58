"""A client whose key has used up its minute waits as long as it is told, and then is served."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from shardline import AsyncClient
from shardline.errors import QueueFullError
from shardline_cluster.access.api_key import KeyLimits
from tests.cluster.router.limited_gate import LimitedGate
from tests.cluster.router.router_bench import RouterBench, open_bench
from tests.cluster.router.scripted_leader import STOP

KEY = "alice"
LIMITS = KeyLimits(tokens_per_minute=3_000)  # fifty a second


@pytest.fixture
async def bench() -> AsyncIterator[RouterBench]:
    async with open_bench() as bench:
        yield bench


async def serve(bench: RouterBench, num_requests: int) -> None:
    """Answers so many requests."""
    while num_requests:
        for granted in await bench.leader.claim():
            await bench.say(granted.info.id, "ok", finish=STOP)
            num_requests -= 1
        await asyncio.sleep(0.01)


async def test_a_client_waits_for_its_limit_and_is_served_within_its_patience(bench: RouterBench) -> None:
    router = await bench.start_router(gate=LimitedGate(alice=LIMITS))
    async with AsyncClient(f"127.0.0.1:{router.port}", api_key=KEY) as client:
        began = time.monotonic()
        await client.submit("1234567890", max_tokens=2_980)
        serving = asyncio.create_task(serve(bench, 2))

        completion = await client.generate("1234567890", max_tokens=20)

        assert completion.text == "ok"
        assert time.monotonic() - began >= 0.35, "twenty tokens too many, fifty a second"
        await serving


async def test_a_client_without_patience_is_told_when_to_come_again(bench: RouterBench) -> None:
    router = await bench.start_router(gate=LimitedGate(alice=LIMITS))
    async with AsyncClient(f"127.0.0.1:{router.port}", api_key=KEY, max_refusals=0) as client:
        await client.submit("1234567890", max_tokens=2_990)

        with pytest.raises(QueueFullError, match="the key alice may use 3000 tokens a minute") as refused:
            await client.generate("1234567890", max_tokens=1_000)

    assert 19 < (refused.value.retry_after_s or 0) <= 20.2
