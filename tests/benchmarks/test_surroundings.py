"""Where a figure was measured."""

import json
import platform

import pytest

from benchmarks.surroundings import load_average, surroundings


@pytest.mark.process  # git
def test_a_report_can_be_told_from_another() -> None:
    told = surroundings()

    machine, versions = told["machine"], told["versions"]
    assert isinstance(machine, dict)
    assert isinstance(versions, dict)
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["cpu"]
    assert versions["python"] == platform.python_version()
    assert told["commit"]
    assert json.loads(json.dumps(told)) == told


def test_the_load_is_three_averages() -> None:
    assert len(load_average()) == 3
