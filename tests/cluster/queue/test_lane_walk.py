"""Weighted random walks on every queue meet nothing forbidden.

`HYPOTHESIS_PROFILE=deep` walks for long. A seed that failed is walked again by `walk(harness, loop, seed)`.
"""

import asyncio
import os

import pytest

from tests.cluster.queue.lane_harness import HarnessKind, LaneHarness
from tests.cluster.queue.lane_judge import ViolationError
from tests.cluster.queue.lane_walk import walk

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
NUM_WALKS = {"memory": 300, "redis": 40, "valkey": 40}


async def opened(kind: HarnessKind, request: pytest.FixtureRequest) -> LaneHarness:
    """A harness inside the loop that will use it."""
    return await kind.open(request)


@pytest.mark.timeout(3_600 if DEEP else 120)
def test_no_walk_meets_anything_forbidden(harness_kind: HarnessKind, request: pytest.FixtureRequest) -> None:
    with asyncio.Runner() as runner:
        harness = runner.run(opened(harness_kind, request))

        for seed in range(20_000 if DEEP else NUM_WALKS[harness_kind.name]):
            try:
                walk(harness, runner.get_loop(), seed)
            except ViolationError as violation:
                raise AssertionError(f"walk {seed}: {violation}") from violation

        runner.run(harness.close())
