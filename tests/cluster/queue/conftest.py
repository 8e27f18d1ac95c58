"""The same tests for every queue."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.queue.harness_kinds import HARNESS_KINDS
from tests.cluster.queue.lane_harness import HarnessKind, LaneHarness
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
