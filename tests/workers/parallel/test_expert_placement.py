from itertools import pairwise, product

import pytest

from shardline_workers.parallel.expert_placement import ExpertPlacement, PlacementWish, place_experts


def zipf(num_experts: int) -> list[int]:
    return [10_000 // (expert + 1) for expert in range(num_experts)]


def test_neighbours_stay_together_and_counts_differ_by_one() -> None:
    assert place_experts(7, 3).part_experts == ((0, 1, 2), (3, 4), (5, 6))
    assert place_experts(5, 4).part_experts == ((0, 1), (2,), (3,), (4,))
    assert not place_experts(5, 4).has_copies


@pytest.mark.parametrize(
    ("num_experts", "num_parts", "num_redundant"),
    [
        (experts, parts, redundant)
        for experts, parts in product((1, 4, 5, 7, 64), (1, 2, 3, 4, 8))
        for redundant in (0, 1, 3, experts * (parts - 1))
        if parts <= experts and redundant <= experts * (parts - 1)
    ],
)
def test_every_expert_is_there_and_no_part_has_one_twice(num_experts: int, num_parts: int, num_redundant: int) -> None:
    placement = place_experts(num_experts, num_parts, loads=zipf(num_experts), num_redundant=num_redundant)

    parts = placement.part_experts
    assert {expert for part in parts for expert in part} == set(range(num_experts))
    assert all(before < after for part in parts for before, after in pairwise(part))
    sizes = [len(part) for part in parts]
    assert sum(sizes) == num_experts + num_redundant
    assert max(sizes) - min(sizes) <= 1
    assert placement.has_copies == (num_redundant > 0)


def test_copies_go_to_the_hottest_experts_and_parts_carry_about_as_much() -> None:
    loads = [100, 4, 4, 60, 4, 4, 4, 4]

    neighbours = place_experts(8, 4)
    balanced = place_experts(8, 4, loads=loads)
    copied = place_experts(8, 4, loads=loads, num_redundant=4)

    assert max(neighbours.part_loads(loads)) == 104
    assert max(balanced.part_loads(loads)) == 104  # one expert alone is more than a part's share
    assert [len(copied.parts_of(expert)) for expert in range(8)] == [4, 1, 1, 2, 1, 1, 1, 1]
    assert max(copied.part_loads(loads)) < 1.35 * sum(loads) / 4
    assert sum(copied.part_loads(loads)) == pytest.approx(sum(loads))


def test_copies_take_turns_along_a_sequence() -> None:
    placement = ExpertPlacement(((0, 1), (1, 2), (1, 3)))

    assert [placement.part_for(1, position) for position in range(5)] == [0, 1, 2, 0, 1]
    assert {placement.part_for(3, position) for position in range(5)} == {2}


def test_equal_wishes_give_equal_placements_whatever_is_tied() -> None:
    placements = {place_experts(6, 3, loads=[5] * 6, num_redundant=3) for _ in range(3)}

    assert len(placements) == 1


@pytest.mark.parametrize(
    ("num_parts", "num_redundant", "loads", "message"),
    [
        (6, 0, None, "5 experts cannot be dealt to 6 parts: take ep of 1 to 5"),
        (2, 6, None, "6 redundant copies were asked for; 5 experts on 2 parts have room for 0 to 5"),
        (1, 1, None, "have room for 0 to 0"),
        (2, 0, [1, 2], "loads of 2 experts were given; the layer has 5"),
    ],
)
def test_what_cannot_be_placed_is_refused(
    num_parts: int, num_redundant: int, loads: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        place_experts(5, num_parts, loads=loads, num_redundant=num_redundant)


def test_a_wish_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="num_redundant is -1"):
        PlacementWish(num_redundant=-1)
    with pytest.raises(ValueError, match="below 0"):
        PlacementWish(loads=((1, -1),))


def test_layers_without_known_loads_have_none() -> None:
    wish = PlacementWish(loads=((), (3, 4)))

    assert [wish.loads_of(layer) for layer in range(3)] == [None, (3, 4), None]
