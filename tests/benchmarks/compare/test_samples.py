"""Rounds, and what they say together."""

import json

import pytest

from benchmarks.compare.samples import Place, Sample, Spread, noise_summary, paired_ratios, spreads
from tests.benchmarks.compare.samples_of import samples_of


def test_a_place_has_the_median_and_the_range_of_its_rounds() -> None:
    found = spreads(samples_of("vllm", [5.0, 1.0, 3.0]))

    assert found == {Place("engines", "decode 1", "Q8_0", "vllm", "tokens_per_s"): Spread(3.0, 1.0, 5.0, 3)}


def test_ratios_are_taken_within_each_round_that_both_have() -> None:
    assert paired_ratios({0: 10.0, 1: 40.0, 2: 7.0}, {0: 5.0, 1: 10.0}) == [2.0, 4.0]


def test_rounds_that_never_met_are_paired_in_order() -> None:
    assert paired_ratios({5: 10.0, 6: 40.0}, {0: 5.0, 1: 10.0, 2: 1.0}) == [2.0, 4.0]


def test_nothing_is_divided_by_nothing() -> None:
    assert paired_ratios({0: 10.0}, {0: 0.0}) == []


def test_what_else_ran_is_summed_up() -> None:
    summary = noise_summary([*samples_of("a", [1.0, 1.0, 1.0]), *samples_of("b", [1.0])])

    shares = summary["others_cpu_share"]
    assert shares.median == pytest.approx(0.005)
    assert (shares.least, shares.most, shares.rounds) == (0.0, 0.02, 4)


def test_a_sample_survives_the_result_file() -> None:
    (sample,) = samples_of("vllm", [5.0])

    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample
