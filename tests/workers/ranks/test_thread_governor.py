import pytest

from shardline_workers.ranks.thread_governor import ThreadGovernor


def free_step(governor: ThreadGovernor) -> int:
    """A step whose threads had their cores; returns how many these were."""
    num_threads = governor.num_threads
    governor.record(wall_s=0.125, cpu_s=0.125 * num_threads)
    return num_threads


def crowded_step(governor: ThreadGovernor) -> int:
    """A step on a machine where one core is all that there is to have."""
    num_threads = governor.num_threads
    governor.record(wall_s=0.125, cpu_s=0.125)
    return num_threads


def test_threads_that_have_their_cores_stay() -> None:
    governor = ThreadGovernor(4)

    assert [free_step(governor) for _ in range(100)] == [4] * 100


def test_one_thread_follows_a_step_that_waited_for_cores() -> None:
    governor = ThreadGovernor(2)
    crowded_step(governor)

    assert governor.num_threads == 1


def test_all_threads_are_tried_again_ever_more_rarely() -> None:
    governor = ThreadGovernor(2)

    steps = [crowded_step(governor) for _ in range(1 + 8 + 1 + 16 + 1)]

    assert [number for number, threads in enumerate(steps) if threads == 2] == [0, 9, 26]


def test_a_core_that_is_free_again_is_used_again() -> None:
    governor = ThreadGovernor(2)
    crowded_step(governor)
    for _ in range(8):
        free_step(governor)

    assert [free_step(governor) for _ in range(50)] == [2] * 50


def test_steps_too_short_for_the_clock_are_judged_together() -> None:
    governor = ThreadGovernor(2)

    threads = []
    for _ in range(11):
        threads.append(governor.num_threads)
        governor.record(wall_s=0.0021, cpu_s=0.0021)

    assert threads == [2] * 10 + [1]


def test_one_slow_step_among_good_ones_changes_nothing() -> None:
    governor = ThreadGovernor(2)

    for number in range(40):
        governor.record(wall_s=0.002, cpu_s=0.002 if number % 10 == 0 else 0.004)

    assert governor.num_threads == 2


def test_one_thread_is_never_governed() -> None:
    governor = ThreadGovernor(1)

    assert {crowded_step(governor) for _ in range(10)} == {1}


def test_no_threads_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="max_threads is 0"):
        ThreadGovernor(0)
