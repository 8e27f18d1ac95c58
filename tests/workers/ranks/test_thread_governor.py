"""Governed steps on a machine whose speed on one thread and on all is given."""

from dataclasses import dataclass

import pytest

from shardline_workers.ranks.thread_governor import ThreadGovernor

STALL_S = 1.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a step."""

    one_s: float
    all_s: float


QUIET = Speed(one_s=0.020, all_s=0.011)
TAKEN = Speed(one_s=0.020, all_s=0.034)  # another process computes on one of two cores
SMALL = Speed(one_s=0.0044, all_s=0.0042)  # memory is the wall


class ClockedGovernor(ThreadGovernor):
    """A governor and the instant at which its steps have arrived."""

    now_s = 0.0


def step(governor: ClockedGovernor, num_tokens: int, seconds: float, *, pause_s: float = 0.0) -> None:
    began_s = governor.now_s + pause_s
    governor.now_s = began_s + seconds
    governor.record(num_tokens, num_threads=governor.num_threads(num_tokens), began_s=began_s, ended_s=governor.now_s)


def steps_for(governor: ClockedGovernor, seconds: float, speed: Speed, *, num_tokens: int = 16) -> list[int]:
    """Steps until so much time is over; returns the threads of each."""
    threads: list[int] = []
    passed_s = 0.0
    while passed_s < seconds:
        threads.append(governor.num_threads(num_tokens))
        step_s = speed.one_s if threads[-1] == 1 else speed.all_s
        step(governor, num_tokens, step_s)
        passed_s += step_s
    return threads


def share_of(threads: list[int], number: int) -> float:
    return threads.count(number) / len(threads)


def test_all_threads_stay_where_they_are_faster() -> None:
    threads = steps_for(ClockedGovernor(2), 20.0, QUIET)

    assert threads[:4] == [2] * 4
    assert share_of(threads, 2) > 0.98


def test_one_thread_computes_what_all_would_hardly_compute_sooner() -> None:
    threads = steps_for(ClockedGovernor(2), 5.0, SMALL, num_tokens=1)

    assert share_of(threads, 1) > 0.9


def test_a_taken_core_is_left_after_a_few_steps() -> None:
    governor = ClockedGovernor(2)
    steps_for(governor, 10.0, QUIET)

    threads = steps_for(governor, 1.0, TAKEN)

    assert share_of(threads[:6], 1) > 0.5
    assert share_of(threads[6:], 1) > 0.9


@pytest.mark.parametrize("seconds", [1.0, 5.0, 60.0])
def test_beside_another_process_little_is_lost_however_long_it_stays(seconds: float) -> None:
    governor = ClockedGovernor(2)
    steps_for(governor, 10.0, QUIET)

    num_steps = len(steps_for(governor, seconds, TAKEN))

    assert num_steps > 0.9 * seconds / TAKEN.one_s


def test_a_core_that_is_free_again_is_used_within_seconds() -> None:
    governor = ClockedGovernor(2)
    steps_for(governor, 60.0, TAKEN)

    threads = steps_for(governor, 20.0, QUIET)

    first = threads.index(2)
    assert first * QUIET.one_s < 4.0
    assert share_of(threads[first:], 2) > 0.98


def test_a_trial_that_collapsed_does_not_keep_all_threads_away_for_long() -> None:
    governor = ClockedGovernor(2)
    steps_for(governor, 60.0, Speed(one_s=0.020, all_s=0.500))

    threads = steps_for(governor, 20.0, QUIET)

    assert threads.index(2) * QUIET.one_s < 5.0


def test_a_step_that_stood_still_changes_nothing_for_long() -> None:
    governor = ClockedGovernor(2)
    steps_for(governor, 10.0, QUIET)

    step(governor, 16, STALL_S)

    assert share_of(steps_for(governor, 2.0, QUIET), 2) > 0.95


def test_a_first_step_that_touches_memory_does_not_count() -> None:
    governor = ClockedGovernor(2)

    step(governor, 16, STALL_S)

    assert share_of(steps_for(governor, 2.0, QUIET), 2) > 0.95


def test_bursts_of_other_processes_do_not_drive_threads_away() -> None:
    governor = ClockedGovernor(2)
    threads: list[int] = []

    for number in range(800):
        threads.append(governor.num_threads(16))
        is_disturbed = number % 2 == 0
        if threads[-1] == 2:
            step(governor, 16, 0.018 if is_disturbed else 0.010)
        else:
            step(governor, 16, 0.022 if is_disturbed else 0.013)

    assert share_of(threads, 2) > 0.85


def test_sizes_are_judged_each_by_itself() -> None:
    governor = ClockedGovernor(2)
    for _ in range(20):
        steps_for(governor, 0.1, SMALL, num_tokens=1)
        steps_for(governor, 0.1, QUIET, num_tokens=16)

    assert (governor.num_threads(1), governor.num_threads(16), governor.num_threads(19)) == (1, 2, 2)


def test_a_new_size_begins_as_the_nearest_known_one() -> None:
    governor = ClockedGovernor(2)
    steps_for(governor, 5.0, SMALL, num_tokens=1)
    steps_for(governor, 5.0, QUIET, num_tokens=16)

    assert (governor.num_threads(2), governor.num_threads(12)) == (1, 2)


def test_what_all_threads_keep_others_from_doing_between_steps_counts_as_well() -> None:
    governor = ClockedGovernor(2)
    threads: list[int] = []

    for _ in range(400):
        threads.append(governor.num_threads(16))
        if threads[-1] == 2:
            step(governor, 16, 0.018, pause_s=0.004)
        else:
            step(governor, 16, 0.020)

    assert share_of(threads, 1) > 0.9


def test_a_pause_without_work_counts_for_nothing() -> None:
    governor = ClockedGovernor(2)
    threads: list[int] = []

    for number in range(400):
        threads.append(governor.num_threads(16))
        idle_s = 3.0 if number % 5 == 0 else 0.0
        step(governor, 16, QUIET.all_s if threads[-1] == 2 else QUIET.one_s, pause_s=idle_s)

    assert share_of(threads, 2) > 0.95


def test_long_steps_are_tried_on_one_thread_only_when_that_costs_little() -> None:
    prefill = Speed(one_s=0.5, all_s=0.25)

    threads = steps_for(ClockedGovernor(2), 60.0, prefill, num_tokens=512)

    assert 1 not in threads[:30]
    assert share_of(threads, 2) > 0.95


def test_long_prompts_among_short_ones_do_not_look_like_a_taken_core() -> None:
    governor = ClockedGovernor(2)
    threads: list[int] = []

    for _ in range(40):
        threads += steps_for(governor, 1.0, Speed(one_s=0.36, all_s=0.2), num_tokens=256)
        threads += steps_for(governor, 1.0, Speed(one_s=0.63, all_s=0.35), num_tokens=256)

    assert share_of(threads, 2) > 0.95


def test_one_thread_is_never_governed() -> None:
    assert set(steps_for(ClockedGovernor(1), 2.0, TAKEN)) == {1}


def test_no_threads_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="max_threads is 0"):
        ThreadGovernor(0)
