"""What the profile of the kernels makes of the times it is given."""

import numpy as np

from benchmarks.kernel_profile import Profile, label_of
from shardline_workers.kernels import native_api as api


def test_of_each_operation_the_shortest_time_counts_and_like_ones_are_added_up() -> None:
    profile = Profile(labels=["norm", "attention", "norm"])

    profile.book(4, np.array([3_000_000, 9_000_000, 1_000_000]))
    profile.book(4, np.array([2_000_000, 9_500_000, 5_000_000]))
    profile.book(1, np.array([1, 1, 1]))

    assert profile.figures(4) == {
        "tokens": 4,
        "step_ms": 12.0,
        "operations": {"attention": {"ms": 9.0, "share": 0.75}, "norm": {"ms": 3.0, "share": 0.25}},
    }


def test_a_linear_layer_is_told_with_its_matrix() -> None:
    weight = api.Weight(api.Format.W4, 960, 576)
    linear = api.Op(api.OpKind.LINEAR, 0, api.Operands(linear=api.Linear(weight=weight)))

    assert label_of(linear) == "linear 576 → 960 W4"
    assert label_of(api.Op(api.OpKind.NORM, 0)) == "norm"
