"""Scripted routers that are gone when their test is over."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.client.scripted_router import ScriptedCluster, ScriptedRouter

StartRouter = Callable[..., ScriptedRouter]


@pytest.fixture
def start_router() -> Iterator[StartRouter]:
    routers: list[ScriptedRouter] = []

    def start(cluster: ScriptedCluster | None = None, **options: Any) -> ScriptedRouter:
        routers.append(ScriptedRouter(cluster or ScriptedCluster(), **options))
        return routers[-1]

    yield start
    for router in routers:
        router.stop()
