"""Which experts tokens take: against the reference in float64, ties, and the same bits in every company."""

import numpy as np
import pytest
import torch

from shardline_workers.kernels.operands import RoutingRule, Scoring
from shardline_workers.kernels.reference_experts import choose
from tests.workers.kernels.native.expert_layers import Chosen, random, run_route
from tests.workers.kernels.native.programs import Floats, Machine

RULES = {
    "mixtral": RoutingRule(num_active=2),
    "qwen3": RoutingRule(num_active=5, renormalises=False),
    "deepseek-v3": RoutingRule(
        num_active=4, scoring=Scoring.SIGMOID, scale=2.5, num_groups=6, num_active_groups=3, renormalises=True
    ),
    "all": RoutingRule(num_active=42, scoring=Scoring.SIGMOID),
    "one": RoutingRule(num_active=1, num_groups=2, num_active_groups=1, renormalises=False, scale=0.5),
}
NUM_EXPERTS = 42


def reference(x: Floats, router: Floats, rule: RoutingRule, bias: Floats | None) -> Chosen:
    wide = [None if part is None else torch.from_numpy(part).double() for part in (x, router, bias)]
    assert wide[0] is not None and wide[1] is not None
    ids, weights = choose(wide[0], wide[1], bias=wide[2], rule=rule)
    return Chosen(ids.numpy().astype(np.int32), weights.numpy().astype(np.float32))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("width", [64, 57])
@pytest.mark.parametrize("has_bias", [False, True])
def test_tokens_take_the_experts_of_the_reference(
    machine: Machine, rule: RoutingRule, width: int, has_bias: bool
) -> None:
    x, router = random(29, width), random(NUM_EXPERTS, width, seed=1) * np.float32(0.2)
    bias = random(NUM_EXPERTS, seed=2) * np.float32(0.3) if has_bias else None

    chosen = run_route(machine, x, router, rule, bias=bias, num_threads=2)

    expected = reference(x, router, rule, bias)
    assert np.array_equal(chosen.ids, expected.ids)
    assert np.allclose(chosen.weights, expected.weights, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_token_takes_the_same_in_every_batch_on_every_thread_and_instruction_set(
    machine: Machine, rule: RoutingRule
) -> None:
    x, router, bias = random(23, 57), random(NUM_EXPERTS, 57, seed=1), random(NUM_EXPERTS, seed=2)
    alone = [run_route(machine, x[[row]], router, rule, bias=bias) for row in range(len(x))]

    for isa in machine.library.available_isas().values():
        for rows in (1, 2, 3, 4, 5, 23):
            for num_threads in (1, 2):
                chosen = run_route(machine, x[:rows].copy(), router, rule, bias=bias, isa=isa, num_threads=num_threads)
                assert chosen.ids.tobytes() == b"".join(one.ids.tobytes() for one in alone[:rows])
                assert chosen.weights.tobytes() == b"".join(one.weights.tobytes() for one in alone[:rows])


@pytest.mark.parametrize("scoring", list(Scoring))
def test_ties_go_to_the_lower_ids_of_experts_and_of_groups(machine: Machine, scoring: Scoring) -> None:
    rule = RoutingRule(num_active=3, scoring=scoring, num_groups=4, num_active_groups=2)
    router = np.zeros((12, 32), dtype=np.float32)
    router[[3, 4, 10, 11]] = 1  # the second and the last group have two good ones each, the others none

    chosen = run_route(machine, np.stack([np.ones(32), -np.ones(32)]).astype(np.float32), router, rule)

    assert chosen.ids.tolist() == [[3, 4, 10], [0, 1, 2]]
    assert np.allclose(chosen.weights, 1 / 3)


def test_a_bias_chooses_and_does_not_weigh(machine: Machine) -> None:
    rule = RoutingRule(num_active=1, scoring=Scoring.SIGMOID, renormalises=False)
    x, router = np.ones((1, 32), dtype=np.float32), np.zeros((4, 32), dtype=np.float32)
    router[0] = 1
    bias = np.array([0, 0, 3, 0], dtype=np.float32)

    chosen = run_route(machine, x, router, rule, bias=bias)

    assert (chosen.ids.item(), chosen.weights.item()) == (2, 0.5)


def test_counts_grow_by_the_tokens_that_take_an_expert(machine: Machine) -> None:
    x, router, rule = random(50, 64), random(NUM_EXPERTS, 64, seed=1), RULES["mixtral"]
    counts = torch.full((NUM_EXPERTS,), 1000, dtype=torch.int64)

    chosen = run_route(machine, x, router, rule, counts=counts, num_threads=2)

    assert np.array_equal(counts.numpy() - 1000, np.bincount(chosen.ids.ravel(), minlength=NUM_EXPERTS))


def test_a_step_without_tokens_says_so(machine: Machine) -> None:
    chosen = run_route(machine, random(0, 64), random(NUM_EXPERTS, 64), RULES["mixtral"], num_threads=2)

    assert chosen.ids.shape == (0, 2)


@pytest.mark.parametrize("scoring", list(Scoring))
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_token_takes_experts_with_weights_that_are_none(
    machine: Machine, scoring: Scoring, broken: float
) -> None:
    x, router = random(9, 64), random(NUM_EXPERTS, 64, seed=1)
    spoilt = x.copy()
    spoilt[4, 3] = broken
    rule = RoutingRule(num_active=3, scoring=scoring)

    whole, chosen = (run_route(machine, rows, router, rule) for rows in (x, spoilt))

    assert chosen.ids[4].tolist() == [0, 1, 2] and np.isnan(chosen.weights[4]).all()
    others = np.arange(9) != 4
    assert chosen.of(others).weights.tobytes() == whole.of(others).weights.tobytes()
