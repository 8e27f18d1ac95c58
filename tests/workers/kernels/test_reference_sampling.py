import math

import pytest
import torch
from torch import Tensor

from shardline_workers.kernels import reference_sampling as sampling
from shardline_workers.kernels.noise import noise_key


def weights(probabilities: list[float]) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def survivors(scaled: Tensor) -> list[int]:
    return scaled[0].isfinite().nonzero()[:, 0].tolist()


def cut(probabilities: list[float], *, top_k: int = 0, top_p: float = 1.0) -> list[int]:
    top_ps = torch.tensor([top_p], dtype=torch.float64)
    return survivors(sampling.cut_top(weights(probabilities), top_ks=torch.tensor([top_k]), top_ps=top_ps))


def test_the_likeliest_token_is_chosen_and_ties_go_to_the_lowest_id() -> None:
    chosen, usable = sampling.greedy_choice(torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 5.0]]))

    assert chosen.tolist() == [1, 0]
    assert usable.tolist() == [True, True]


@pytest.mark.parametrize(
    "row", [[math.nan, 1.0], [1.0, math.inf], [-math.inf, -math.inf]], ids=["NaN", "infinite", "nothing left"]
)
def test_a_row_that_gives_no_distribution_is_marked_and_no_other(row: list[float]) -> None:
    _, usable = sampling.greedy_choice(torch.tensor([row, [1.0, -math.inf]]))

    assert usable.tolist() == [False, True]


def test_top_k_keeps_the_likeliest_and_of_equals_the_lowest_ids() -> None:
    assert cut([0.1, 0.3, 0.2, 0.2, 0.2], top_k=3) == [1, 2, 3]
    assert cut([0.1, 0.9], top_k=0) == [0, 1]
    assert cut([0.1, 0.9], top_k=7) == [0, 1]


def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass() -> None:
    assert cut([0.125, 0.5, 0.25, 0.125], top_p=0.7) == [1, 2]
    assert cut([0.125, 0.5, 0.25, 0.125], top_p=0.75) == [1, 2]
    assert cut([0.125, 0.5, 0.25, 0.125], top_p=0.76) == [0, 1, 2]
    assert cut([0.125, 0.5, 0.25, 0.125], top_p=1.0) == [0, 1, 2, 3]
    assert cut([0.125, 0.5, 0.25, 0.125], top_p=0.0) == [1]


def test_top_p_counts_the_mass_that_top_k_left() -> None:
    assert cut([0.4, 0.2, 0.2, 0.2], top_k=2, top_p=0.66) == [0]


def test_min_p_cuts_what_is_too_unlikely_beside_the_likeliest() -> None:
    scaled = weights([0.5, 0.26, 0.24])

    assert survivors(sampling.cut_min_p(scaled, torch.tensor([0.5], dtype=torch.float64))) == [0, 1]
    assert survivors(sampling.cut_min_p(scaled, torch.tensor([0.0], dtype=torch.float64))) == [0, 1, 2]
    assert survivors(sampling.cut_min_p(scaled, torch.tensor([1.0], dtype=torch.float64))) == [0]


def test_the_tiniest_temperature_is_greedy_and_not_a_number_too_large() -> None:
    scaled = sampling.scale(torch.tensor([[300.0, 299.0, -50.0]]), torch.tensor([5e-324], dtype=torch.float64))

    assert scaled.tolist() == [[0.0, -math.inf, -math.inf]]


def test_draws_follow_the_distribution() -> None:
    probabilities = [0.5, 0.3, 0.15, 0.05]
    num_draws = 20_000
    keys = torch.tensor([noise_key(seed=3, sequence=0, position=position) for position in range(num_draws)])

    drawn = sampling.draw(weights(probabilities).expand(num_draws, 4), keys)

    for token, probability in enumerate(probabilities):
        spread = math.sqrt(num_draws * probability * (1 - probability))
        assert abs(int((drawn == token).sum()) - num_draws * probability) < 4 * spread


def test_a_cut_token_is_never_drawn_and_does_not_shift_the_others() -> None:
    keys = torch.arange(2000)
    whole = sampling.draw(weights([0.4, 0.3, 0.3]).expand(2000, 3), keys)

    cut_off = sampling.draw(weights([0.4, 0.3, 0.0]).expand(2000, 3), keys)

    assert (cut_off != 2).all()
    assert torch.equal(cut_off[whole != 2], whole[whole != 2])


def test_of_equally_likely_tokens_the_lowest_ids_are_told_first() -> None:
    logits = torch.zeros(2, 1000)
    logits[0, 700] = logits[0, 300] = 1.0

    _, top_ids, _ = sampling.row_logprobs(logits, torch.tensor([0, 0]), 4)

    assert top_ids.tolist() == [[300, 700, 0, 1], [0, 1, 2, 3]]
    assert sampling.row_logprobs(logits, torch.tensor([0, 0]), 0)[1].shape == (2, 0)


def test_logprobs_are_of_the_logits_as_they_are() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log() + 7

    chosen, top_ids, top = sampling.row_logprobs(logits, torch.tensor([2]), 2)

    assert chosen.exp().item() == pytest.approx(0.3)
    assert top_ids.tolist() == [[1, 2]]
    assert top.exp().tolist()[0] == pytest.approx([0.5, 0.3])
