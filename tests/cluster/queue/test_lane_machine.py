"""Random schedules of a small cluster on every queue: nothing forbidden is seen, and everything ends.

`HYPOTHESIS_PROFILE=deep` runs a long campaign, and shrinks what it finds, which may take minutes.
"""

import asyncio
import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.cluster.queue.lane_harness import HarnessKind, LaneHarness
from tests.cluster.queue.lane_machine import LaneMachine

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
NUM_SCHEDULES = {"memory": 150, "redis": 30, "valkey": 30}  # a server is ten times slower, and has no rules of its own


def schedules(kind: str) -> settings:
    """How many schedules, and how long they are."""
    return settings(
        max_examples=5_000 if DEEP else NUM_SCHEDULES[kind],
        stateful_step_count=80 if DEEP else 40,
        deadline=None,
        print_blob=True,
        phases=tuple(Phase) if DEEP else (Phase.explicit, Phase.reuse, Phase.generate),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),  # a schedule is slow and large by nature
    )


async def opened(kind: HarnessKind, request: pytest.FixtureRequest) -> LaneHarness:
    """A harness inside the loop that will use it."""
    return await kind.open(request)


@pytest.mark.timeout(3_600 if DEEP else 120)
def test_no_schedule_shows_anything_forbidden(harness_kind: HarnessKind, request: pytest.FixtureRequest) -> None:
    with asyncio.Runner() as runner:
        harness = runner.run(opened(harness_kind, request))

        class Machine(LaneMachine):
            def __init__(self) -> None:
                super().__init__(harness, runner.get_loop())

        run_state_machine_as_test(Machine, settings=schedules(harness_kind.name))

        runner.run(harness.close())
