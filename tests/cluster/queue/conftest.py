"""The same tests for every queue."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.queue.harness_kinds import HARNESS_KINDS
from tests.cluster.queue.lane_harness import HarnessKind, LaneHarness
from tests.cluster.queue.lane_stage import SetStage, Stage
from tests.cluster.queue.lane_world import Wish
from tests.cluster.queue.redis_servers import redis_servers as redis_servers

KIND_PARAMETERS = [pytest.param(kind, id=kind.name, marks=kind.marks) for kind in HARNESS_KINDS]


@pytest.fixture(params=KIND_PARAMETERS)
def harness_kind(request: pytest.FixtureRequest) -> HarnessKind:
    kind: HarnessKind = request.param
    return kind


@pytest.fixture
async def harness(harness_kind: HarnessKind, request: pytest.FixtureRequest) -> AsyncIterator[LaneHarness]:
    """A lane whose first hold is over, just swept."""
    harness = await harness_kind.open(request)
    await harness.queue().view()
    await harness.advance(harness.terms.hold_ms)
    await harness.queue().sweep(None)
    yield harness
    await harness.close()


@pytest.fixture
def stage_on(harness_kind: HarnessKind, request: pytest.FixtureRequest) -> Iterator[SetStage]:
    """Sets a stage for an interleaving, on the queue under test."""
    with asyncio.Runner() as runner:
        harness = runner.run(_opened(harness_kind, request))

        def stage_on(*wishes: Wish, length: int = 6) -> Stage:
            return Stage(harness, runner.get_loop(), *wishes, length=length)

        yield stage_on
        runner.run(harness.close())


async def _opened(kind: HarnessKind, request: pytest.FixtureRequest) -> LaneHarness:
    return await kind.open(request)
