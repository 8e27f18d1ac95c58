"""Which rank process becomes which rank."""

from shardline_workers.gang.seats import seat_ranks


def test_whoever_may_be_any_rank_fills_what_others_leave_in_the_order_of_coming() -> None:
    seated = seat_ranks(["a", "b", "c"], [None, 1, None], num_ranks=4)

    assert seated == {1: "b", 2: "a", 3: "c"}


def test_ranks_that_nobody_can_be_are_missing() -> None:
    seated = seat_ranks(["a", "b"], [3, 3], num_ranks=4)

    assert seated == {3: "a"}


def test_processes_that_are_too_many_wait() -> None:
    assert seat_ranks(["a", "b", "c"], [None, None, 3], num_ranks=2) == {1: "a"}
