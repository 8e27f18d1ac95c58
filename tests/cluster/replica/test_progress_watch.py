"""A step has a limit: a least one, and more where the engine expects more."""

from shardline_cluster.replica.progress_watch import ProgressWatch


def test_between_steps_there_is_no_deadline() -> None:
    watch = ProgressWatch(least_limit_s=5.0)

    assert watch.deadline() is None
    watch.begin(100.0, step=1)
    watch.end(1)
    assert watch.deadline() is None


def test_a_step_has_the_least_limit_until_the_engine_says_what_it_expects() -> None:
    watch = ProgressWatch(least_limit_s=5.0)

    watch.begin(100.0, step=1)
    before = watch.deadline()
    watch.expect(0.1)
    short = watch.deadline()
    watch.expect(2.0)

    assert (before, short, watch.deadline()) == (105.0, 105.0, 140.0)
    assert watch.limit_s == 40.0


def test_one_long_step_lends_nothing_to_the_next() -> None:
    watch = ProgressWatch(least_limit_s=5.0)
    watch.begin(100.0, step=1)
    watch.expect(10.0)
    watch.end(1)

    watch.begin(200.0, step=2)

    assert watch.deadline() == 205.0


def test_the_end_of_a_step_that_was_overtaken_ends_nothing() -> None:
    watch = ProgressWatch(least_limit_s=5.0)
    watch.begin(10.0, step=1)
    watch.begin(20.0, step=2)

    watch.end(1)
    during = watch.deadline()
    watch.end(2)

    assert (during, watch.deadline()) == (25.0, None)
