"""Who is to blame where a gang is lost."""

from itertools import permutations

import pytest

from shardline_workers.gang.loss_verdict import LossKind, LossSign, verdict

SIGNS = [
    LossSign(LossKind.FOLLOWED, "rank 3 could not go on without rank 1"),
    LossSign(LossKind.DIED, "rank 1 was killed"),
    LossSign(LossKind.SILENT, "rank 2 is stopped"),
]


@pytest.mark.parametrize("signs", list(permutations(SIGNS)))
def test_a_death_explains_more_than_what_follows_from_it_in_any_order(signs: tuple[LossSign, ...]) -> None:
    assert verdict(signs).text == "rank 1 was killed"


def test_of_two_deaths_the_first_one_that_was_seen_is_told() -> None:
    signs = [LossSign(LossKind.DIED, "rank 2 died"), LossSign(LossKind.DIED, "rank 1 died")]

    assert verdict(signs).text == "rank 2 died"
