"""Phases of a start are told in the order in which they began, from the birth of the process on."""

import os
from pathlib import Path

import pytest

from shardline_cluster.serve.start_times import StartPhase, StartTimes, process_age_s


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_phases_that_overlap_are_told_in_the_order_in_which_they_began() -> None:
    clock = _Clock()
    times = StartTimes(age_s=0.5, clock=clock)

    with times.phase("outer"):
        clock.now_s += 1
        with times.phase("inner"):
            clock.now_s += 2

    assert times.phases == (StartPhase("outer", 0.5, 3.0), StartPhase("inner", 1.5, 2.0))
    assert times.line() == "started in 3.5 s, some of it at the same time: outer 3.0 s, inner 2.0 s"


def test_a_phase_that_took_no_time_is_kept_but_not_told() -> None:
    times = StartTimes(clock=_Clock())
    times.add(StartPhase("kernels", 1.0, 0.04))

    assert times.line() == "started in 0.0 s"
    assert times.phases == (StartPhase("kernels", 1.0, 0.04),)


def test_what_fails_is_no_phase() -> None:
    times = StartTimes(clock=_Clock())

    with pytest.raises(OSError, match="gone"), times.phase("broken"):
        raise OSError("gone")

    assert times.phases == ()


def test_a_process_is_as_old_as_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    ticks = os.sysconf("SC_CLK_TCK") * 40
    fields = ["S", *["0"] * 18, str(ticks), "0"]
    (tmp_path / "self/stat").write_text(f"7 (a (odd) name) {' '.join(fields)}\n")
    (tmp_path / "uptime").write_text("42.50 1.00\n")

    assert process_age_s(tmp_path) == pytest.approx(2.5)
    assert process_age_s(tmp_path / "nowhere") == 0.0
