"""The grid of ranks, and the shapes that there cannot be."""

from itertools import product

import pytest

from shardline_workers.parallel.parallel_plan import ParallelPlan, possible_ep


@pytest.mark.parametrize(("tp", "pp", "dp"), list(product((1, 2, 3), repeat=3)))
def test_every_rank_has_one_place_and_neighbours_share_matrices(tp: int, pp: int, dp: int) -> None:
    plan = ParallelPlan(tp=tp, pp=pp, dp=dp)

    ranks = [
        plan.rank(stage=stage, group=group, place=place)
        for stage in range(pp)
        for group in range(dp)
        for place in range(tp)
    ]

    assert ranks == list(range(plan.num_ranks))


def test_the_grid_is_the_one_that_is_drawn() -> None:
    plan = ParallelPlan(tp=2, pp=2, dp=2, ep=2)

    assert plan.rank(stage=1, group=0, place=1) == 5
    assert [plan.expert_part(group=group, place=place) for group in (0, 1) for place in (0, 1)] == [0, 0, 1, 1]
    assert plan.expert_tp == 2


@pytest.mark.parametrize(("tp", "dp"), list(product((1, 2, 3, 4, 6), (1, 2, 3))))
def test_each_part_of_the_experts_has_as_many_ranks(tp: int, dp: int) -> None:
    for ep in possible_ep(tp=tp, dp=dp)[1:]:
        plan = ParallelPlan(tp=tp, dp=dp, ep=ep)

        parts = [plan.expert_part(group=group, place=place) for group in range(dp) for place in range(tp)]

        assert {part: parts.count(part) for part in range(ep)} == dict.fromkeys(range(ep), plan.expert_tp)


def test_without_expert_parts_each_group_has_all_experts() -> None:
    plan = ParallelPlan(tp=2, dp=2)

    assert (plan.expert_tp, plan.expert_part(group=1, place=1)) == (2, 0)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"tp": 0}, "tp is 0; it must be at least 1"),
        ({"pp": -1}, "pp is -1"),
        ({"tp": 4, "ep": 3}, "ep is 3; .* one of 1, 2, 4"),
        ({"tp": 4, "dp": 2, "ep": 1 + 3 * 2}, "divide tp \\* dp = 8"),
        ({"tp": 2, "dp": 4, "ep": 2}, "a multiple of dp = 4: one of 1, 4, 8"),
    ],
)
def test_a_shape_that_cannot_be_says_which_could(sizes: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ParallelPlan(**sizes)


@pytest.mark.parametrize("position", [{"stage": 2}, {"group": 1}, {"place": -1}])
def test_there_is_no_rank_outside_the_grid(position: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="it must be 0 to"):
        ParallelPlan(tp=2, pp=2).rank(**{"stage": 0, "group": 0, "place": 0, **position})


def test_a_plan_is_told_without_what_is_one() -> None:
    assert [str(ParallelPlan()), str(ParallelPlan(tp=4, pp=2))] == ["tp=1", "tp=4 pp=2"]
    assert str(ParallelPlan(tp=2, ep=4, dp=2)) == "tp=2 ep=4 dp=2"
