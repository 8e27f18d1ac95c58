"""Prompts of random ordinary tokens: they share no beginning, so that no prefix cache makes them cheap."""

import random

_LEAST_ID = 1000  # ordinary tokens of a vocabulary lie above its special ones


def random_prompt(draw: random.Random, num_tokens: int, *, vocab_size: int) -> tuple[int, ...]:
    """The generator's next `num_tokens` token ids; of a small vocabulary the upper half."""
    least = min(_LEAST_ID, vocab_size // 2)
    return tuple(draw.randrange(least, vocab_size) for _ in range(num_tokens))
