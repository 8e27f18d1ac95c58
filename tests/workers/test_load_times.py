"""Phases of loading keep their order and add up."""

from shardline_workers.load_times import LoadTimes


def test_phases_add_up_in_the_order_in_which_they_first_ended() -> None:
    now_s = [0.0]
    times = LoadTimes(lambda: now_s[0])

    for name, took_s in (("weights", 1.0), ("cache", 0.25), ("weights", 0.5)):
        with times.phase(name):
            now_s[0] += took_s

    assert list(times.seconds.items()) == [("weights", 1.5), ("cache", 0.25)]
