"""A server in memory, routers on it, and a leader that does as it is told."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.router.scripted_leader import ScriptedLeader
from tests.cluster.router.stepped_router import StartRouter, SteppedRouter, SteppedServer


@pytest.fixture
async def world() -> SteppedServer:
    world = SteppedServer()
    await world.past_the_hold()
    return world


@pytest.fixture
async def start(world: SteppedServer) -> AsyncIterator[StartRouter]:
    routers: list[SteppedRouter] = []

    async def start_router(incarnation: str) -> SteppedRouter:
        router = SteppedRouter(world, incarnation)
        routers.append(router)
        await router.start()
        return router

    yield start_router
    for router in routers:
        await router.stop()


@pytest.fixture
async def router(start: StartRouter) -> SteppedRouter:
    return await start("router-1")


@pytest.fixture
def leader(world: SteppedServer) -> ScriptedLeader:
    return ScriptedLeader(world.queue())
