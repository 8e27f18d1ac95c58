"""A campaign finds what readers may not do, goes on behind it, and can show the case again."""

import pytest

from tests.fuzz.broken_readers import BAD_CASE, CRASHING, GREEDY, RAISING, SLEEPING
from tests.fuzz.campaign import run_campaign
from tests.fuzz.case_runner import case_input
from tests.fuzz.target import FuzzTarget

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("target", "seed", "told"),
    [(RAISING, 4, "KeyError"), (GREEDY, 4, "MemoryError"), (CRASHING, 4, "with -11"), (SLEEPING, 3, "with -9")],
    ids=lambda value: value.name if isinstance(value, FuzzTarget) else "",
)
def test_what_no_reader_may_do_is_found_and_the_rest_is_run_all_the_same(
    target: FuzzTarget, seed: int, told: str
) -> None:
    num_cases = 40
    bad = [index for index in range(num_cases) if case_input(target, seed, index) == BAD_CASE]
    assert 1 <= len(bad) < 10

    progress = run_campaign(target, seed=seed, num_cases=num_cases, num_workers=2, silence_limit_s=3.0)

    assert sorted(finding.index for finding in progress.findings) == bad
    assert all(told in finding.why for finding in progress.findings)
    assert progress.num_cases == num_cases
