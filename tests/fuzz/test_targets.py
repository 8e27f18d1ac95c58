"""A short round of every target with fixed seeds; `make fuzz` runs the long one."""

from pathlib import Path

import pytest

from tests.fuzz.case_runner import READ, case_input, run_case
from tests.fuzz.target import FuzzTarget
from tests.fuzz.targets import TARGETS

NUM_CASES = 250
SEED = 20_000


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random blocks of weights hold scales that are no numbers
def test_every_case_is_read_or_refused_with_the_documented_error(target: FuzzTarget, tmp_path: Path) -> None:
    outcomes = {}

    for index in range(NUM_CASES):
        outcomes[index] = run_case(target, case_input(target, SEED, index), tmp_path)

    assert READ in outcomes.values(), "no case reached the end: nothing deep was tried"
    assert len(set(outcomes.values())) >= 3, "the cases all ended alike: nothing varied was tried"


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_case_is_the_same_whenever_it_is_made(target: FuzzTarget) -> None:
    indices = range(50)

    there = [case_input(target, SEED, index) for index in indices]
    back = [case_input(target, SEED, index) for index in reversed(indices)]

    assert there == back[::-1]
    assert len(set(there)) > 25
