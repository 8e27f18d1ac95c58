import pytest

from shardline_workers.scheduling.step_times import StepTimes


def test_before_any_step_the_guess_is_long() -> None:
    assert StepTimes().expected_s(1) == 1.0


def test_the_first_measurement_stands_for_its_size() -> None:
    times = StepTimes()
    times.record(5, 0.2)

    assert [times.expected_s(tokens) for tokens in (4, 7)] == [0.2, 0.2]


def test_new_measurements_move_the_figure() -> None:
    times = StepTimes()
    times.record(1, 0.1)
    for _ in range(30):
        times.record(1, 0.5)

    assert times.expected_s(1) == pytest.approx(0.5, abs=0.001)


def test_one_slow_step_does_not_stand_for_all() -> None:
    times = StepTimes()
    times.record(1, 0.1)
    times.record(1, 0.5)

    assert times.expected_s(1) == pytest.approx(0.2)


def test_an_unmeasured_size_is_judged_by_the_next_larger_one() -> None:
    times = StepTimes()
    times.record(1, 0.1)
    times.record(64, 3.0)
    times.record(512, 9.0)

    assert times.expected_s(8) == 3.0


def test_a_size_beyond_all_measured_ones_is_judged_in_proportion() -> None:
    times = StepTimes()
    times.record(16, 0.5)

    assert times.expected_s(64) == 2.0
