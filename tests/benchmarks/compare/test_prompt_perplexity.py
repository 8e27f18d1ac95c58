"""Which tokens of a text count, and what an engine that tells known probabilities makes of them."""

import pytest

from benchmarks.compare.prompt_perplexity import counted, prompt_perplexity, whole_chunks
from shardline_workers.engine import TokenLogprobs
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig


def test_what_does_not_fill_a_chunk_is_dropped() -> None:
    assert list(whole_chunks(range(11), 4)) == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_only_tokens_with_more_than_half_a_chunk_before_them_count() -> None:
    of_tokens = {place: TokenLogprobs(-float(place)) for place in range(1, 8)}

    assert counted(list(of_tokens.values())) == [-5.0, -6.0, -7.0]


def test_an_engine_that_finds_each_token_as_likely_as_not_has_a_perplexity_of_two() -> None:
    engine = SimulatedEngine(SimulatedEngineConfig(), sleep=lambda _: None)

    found = prompt_perplexity(engine, range(35), chunk_tokens=8)

    assert found.perplexity == pytest.approx(2.0)
    assert (found.num_chunks, found.num_tokens) == (4, 12)
    assert not engine.has_work()


def test_a_text_of_less_than_two_chunks_is_refused() -> None:
    engine = SimulatedEngine(SimulatedEngineConfig(), sleep=lambda _: None)

    with pytest.raises(ValueError, match="the text has 15 tokens; it needs at least two chunks of 8"):
        prompt_perplexity(engine, range(15), chunk_tokens=8)
