"""Random prompts: of ordinary tokens, and the same from the same generator."""

import random

from benchmarks.random_prompts import random_prompt


def test_tokens_lie_above_the_special_ones_and_within_the_vocabulary() -> None:
    assert set(random_prompt(random.Random(1), 200, vocab_size=1003)) <= set(range(501, 1003))
    assert set(random_prompt(random.Random(1), 200, vocab_size=5000)) <= set(range(1000, 5000))


def test_the_same_seed_gives_the_same_prompt_and_the_next_one_is_another() -> None:
    draw, again = random.Random(7), random.Random(7)

    first = random_prompt(draw, 16, vocab_size=5000)

    assert first == random_prompt(again, 16, vocab_size=5000)
    assert first != random_prompt(draw, 16, vocab_size=5000)
