import dataclasses

import pytest
import torch

from shardline_workers.kernels.operands import RoutingRule, Scoring
from shardline_workers.kernels.reference_experts import choose

TOP2 = RoutingRule(num_active=2)


def route(logits: list[float], rule: RoutingRule, bias: list[float] | None = None) -> tuple[list[int], list[float]]:
    """Of one token whose logits are given."""
    router = torch.tensor(logits, dtype=torch.float64)[:, None]
    told = None if bias is None else torch.tensor(bias)
    expert_ids, weights = choose(torch.ones(1, 1, dtype=torch.float64), router, bias=told, rule=rule)
    return expert_ids[0].tolist(), weights[0].tolist()


def test_the_greatest_come_first_and_weights_sum_to_one() -> None:
    expert_ids, weights = route([0.0, 2.0, 1.0], TOP2)

    assert expert_ids == [1, 2]
    assert sum(weights) == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(torch.e)


def test_ties_go_to_the_lower_ids() -> None:
    assert route([1.0, 3.0, 3.0, 3.0], TOP2)[0] == [1, 2]
    assert route([0.0] * 200, RoutingRule(num_active=5))[0] == [0, 1, 2, 3, 4]


def test_weights_may_stay_as_they_are_and_be_scaled() -> None:
    plain = RoutingRule(num_active=2, renormalises=False, scale=2.5)

    _, weights = route([0.0, 2.0, 1.0], plain)

    expected = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64).softmax(-1)[[1, 2]] * 2.5
    assert weights == pytest.approx(expected.tolist())


def test_a_bias_changes_choices_and_no_weights() -> None:
    rule = RoutingRule(num_active=1, scoring=Scoring.SIGMOID, renormalises=False)

    expert_ids, weights = route([0.0, 1.0], rule, bias=[2.0, 0.0])

    assert expert_ids == [0]
    assert weights == [0.5]


def test_only_the_best_groups_are_chosen_from_and_tied_groups_go_to_the_lower_one() -> None:
    rule = RoutingRule(num_active=2, num_groups=3, num_active_groups=1)

    assert route([9.0, 0.0, 8.0, 8.0, 8.0, 8.0], dataclasses.replace(rule, scoring=Scoring.SIGMOID))[0] == [2, 3]
    assert route([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], rule)[0] == [0, 1]


@pytest.mark.parametrize(
    ("rule", "num_experts", "message"),
    [
        (RoutingRule(num_active=6), 5, "a token takes 6 experts; it can choose from 5"),
        (RoutingRule(num_active=1, num_groups=2, num_active_groups=1), 5, "5 experts do not make 2 groups"),
        (RoutingRule(num_active=3, num_groups=2, num_active_groups=1), 4, "it can choose from 2"),
        (RoutingRule(num_active=1, num_groups=4, num_active_groups=1), 4, "must have at least 2"),
    ],
)
def test_rules_that_a_number_of_experts_cannot_meet_are_refused(
    rule: RoutingRule, num_experts: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rule.check(num_experts)


@pytest.mark.parametrize("changes", [{"num_active": 0}, {"scale": 0.0}, {"num_groups": 2, "num_active_groups": 3}])
def test_rules_that_make_no_sense_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(TOP2, **changes)  # type: ignore[arg-type]
