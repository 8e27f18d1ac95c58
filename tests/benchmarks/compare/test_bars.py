"""Bars: who is the rival, what is the ratio, is it enough."""

from functools import partial

import pytest

from benchmarks.compare.bars import BARS, Bar, Rivals, Sense, judge, verdict_lines
from tests.benchmarks.compare.samples_of import samples_of

SPEED = Bar(part="engines", point="decode 1", figure="tokens_per_s", formats=("Q8_0",), wanted=1.3, goal=1.5)
WAIT = Bar(part="engines", point="decode 1", figure="tokens_per_s", formats=("Q8_0",), wanted=1.0, sense=Sense.AT_MOST)


@pytest.mark.parametrize(("ours", "met", "goal"), [(1.2, False, False), (1.3, True, False), (1.6, True, True)])
def test_the_median_of_the_rounds_ratios_decides(ours: float, met: bool, goal: bool) -> None:
    samples = [*samples_of("shardline", [ours, 10 * ours, 0.1]), *samples_of("llama.cpp", [1.0, 10.0, 1.0])]

    (verdict,) = judge(samples, [SPEED])

    assert verdict.ratio.median == pytest.approx(ours)
    assert (verdict.met, verdict.goal_met) == (met, goal)


def test_the_hardest_peer_at_the_same_precision_is_the_rival() -> None:
    bar = Bar(part="engines", point="decode 1", figure="tokens_per_s", formats=("Q4_1",), wanted=1.0)
    samples = [
        *samples_of("shardline", [10.0], format_name="Q4_1"),
        *samples_of("llama.cpp", [2.0], format_name="Q4_1"),
        *samples_of("llama.cpp", [5.0], format_name="Q4_0"),
        *samples_of("vllm", [9.0], format_name="BF16"),
    ]

    (verdict,) = judge(samples, [bar])

    assert (verdict.rival, verdict.ratio.median) == ("llama.cpp Q4_0", 2.0)


def test_among_all_peers_precision_does_not_matter() -> None:
    bar = Bar(part="engines", point="decode 1", figure="tokens_per_s", formats=("Q4_1",), wanted=1.0, rivals=Rivals.ALL)
    samples = [
        *samples_of("shardline", [18.0], format_name="Q4_1"),
        *samples_of("llama.cpp", [2.0], format_name="Q4_1"),
        *samples_of("vllm", [9.0], format_name="BF16"),
        *samples_of("shardline", [90.0], format_name="BF16"),
    ]

    (verdict,) = judge(samples, [bar])

    assert (verdict.rival, verdict.ratio.median) == ("vllm BF16", 2.0)


def test_where_less_is_better_the_quickest_peer_is_the_rival() -> None:
    samples = [
        *samples_of("shardline", [8.0]),
        *samples_of("llama.cpp", [10.0]),
        *samples_of("vllm", [5.0]),
    ]

    (verdict,) = judge(samples, [WAIT])

    assert (verdict.rival, verdict.ratio.median, verdict.met) == ("vllm Q8_0", 1.6, False)


@pytest.mark.parametrize(("ours", "met"), [(19.8, False), (19.95, True), (20.05, True), (20.2, False)])
def test_perplexity_may_be_off_to_both_sides(ours: float, met: bool) -> None:
    told = partial(samples_of, part="perplexity", point="fixed text", figure="perplexity")
    samples = [*told("shardline", [ours]), *told("llama.cpp", [20.0])]

    (verdict,) = judge(samples)

    assert verdict.met is met


def test_what_was_not_measured_has_no_verdict() -> None:
    assert judge(samples_of("shardline", [5.0])) == []
    assert judge(samples_of("llama.cpp", [5.0])) == []


def test_every_bar_stands_on_one_line_and_a_missed_one_shouts() -> None:
    samples = [*samples_of("shardline", [2.0]), *samples_of("llama.cpp", [2.0])]

    lines = verdict_lines(judge(samples))

    assert lines[2:] == [
        "| engines: decode 1, tokens_per_s | Q8_0 | 2 | llama.cpp Q8_0 | 2 | 1.00 (1.00–1.00) | ≥ 1.3 (1.4) | NO |"
    ]


def test_no_place_has_two_bars() -> None:
    places = [(bar.part, bar.point, bar.figure, name) for bar in BARS for name in bar.formats]

    assert len(places) == len(set(places))
