"""How patient a controller is with missing GPUs, as flags say it."""

import argparse

import pytest

from shardline_cluster.cli.flags.launcher_flags import add_replan_flags, replan_times
from shardline_cluster.controller.gang_planning import ReplanTimes


def _times(*flags: str) -> ReplanTimes:
    parser = argparse.ArgumentParser()
    add_replan_flags(parser)
    return replan_times(parser.parse_args(flags))


def test_without_flags_it_is_as_patient_as_the_controller_by_itself() -> None:
    assert _times() == ReplanTimes()


def test_each_flag_is_a_time() -> None:
    assert _times("--replan-after", "2.5", "--replan-back-after", "0") == ReplanTimes(missing_s=2.5, returned_s=0)


def test_a_time_below_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _times("--replan-after", "-1")

    assert "--replan-after: -1 is out of bounds: it must be from 0 to" in capsys.readouterr().err
