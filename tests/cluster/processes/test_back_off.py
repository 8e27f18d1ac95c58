"""Pauses double, end at the longest one, and health begins anew."""

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.processes.back_off import BackOff


def test_nothing_waits_before_it_has_failed() -> None:
    assert BackOff().pause_s(0) == 0.0


@pytest.mark.parametrize(("failures", "pause_s"), [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (10_000, 60.0)])
def test_pauses_double_up_to_the_longest(failures: int, pause_s: float) -> None:
    assert BackOff().pause_s(failures) == pause_s


@pytest.mark.parametrize(("healthy_for_s", "failures"), [(0.0, 6), (59.9, 6), (60.0, 1)])
def test_enough_health_begins_the_count_anew(healthy_for_s: float, failures: int) -> None:
    assert BackOff().failures_after(5, healthy_for_s=healthy_for_s) == failures


def test_a_back_off_that_does_not_rise_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="first_s"):
        BackOff(first_s=2.0, longest_s=1.0)
