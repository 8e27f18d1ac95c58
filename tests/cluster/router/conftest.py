"""Routers on loopback over a queue in memory."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.router.router_bench import RouterBench, RunningRouter, open_bench


@pytest.fixture
async def bench() -> AsyncIterator[RouterBench]:
    async with open_bench() as bench:
        yield bench


@pytest.fixture
async def router(bench: RouterBench) -> RunningRouter:
    return await bench.start_router()
