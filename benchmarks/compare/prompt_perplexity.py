"""Perplexity of a text, counted as `llama-perplexity` counts it, so that the two can stand side by side.

The text's tokens are cut into chunks of equal length, what is left over is dropped. In each chunk only tokens of the
second half count, so that each has at least half a chunk before it: with n tokens in a chunk, tokens n/2 + 1 … n - 1.
A chunk is one prompt, whose tokens the engine tells the log-probabilities of.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardline_workers.engine import Engine, EngineRequest, Sampling, TokenLogprobs


@dataclass(frozen=True, slots=True)
class TextPerplexity:
    """What the text is worth to a model."""

    perplexity: float
    num_chunks: int
    num_tokens: int  # that counted


def prompt_perplexity(engine: Engine, token_ids: Sequence[int], *, chunk_tokens: int) -> TextPerplexity:
    """Computes it with an engine that has no other work.

    Raises:
        ValueError: the text is shorter than two chunks.
        RuntimeError: the engine could not compute a chunk.
    """
    if len(token_ids) < 2 * chunk_tokens:
        raise ValueError(f"the text has {len(token_ids)} tokens; it needs at least two chunks of {chunk_tokens}")
    chunks = list(whole_chunks(token_ids, chunk_tokens))
    losses = [-logprob for chunk in chunks for logprob in counted(_prompt_logprobs(engine, chunk))]
    return TextPerplexity(math.exp(math.fsum(losses) / len(losses)), len(chunks), len(losses))


def whole_chunks(token_ids: Sequence[int], chunk_tokens: int) -> Iterator[tuple[int, ...]]:
    """The text in parts of `chunk_tokens`, without what is left over."""
    for begin in range(0, len(token_ids) - chunk_tokens + 1, chunk_tokens):
        yield tuple(token_ids[begin : begin + chunk_tokens])


def counted(logprobs: Sequence[TokenLogprobs]) -> list[float]:
    """Those that count of a chunk's second token and all behind it."""
    chunk_tokens = len(logprobs) + 1
    return [told.chosen for told in logprobs[chunk_tokens // 2 :]]


def _prompt_logprobs(engine: Engine, chunk: tuple[int, ...]) -> tuple[TokenLogprobs, ...]:
    """Of the chunk's second token and all behind it."""
    sampling = Sampling(temperature=0.0, max_tokens=1, num_prompt_logprobs=0)
    engine.add(EngineRequest(request_id="chunk", prompt_ids=chunk, sampling=sampling))
    told: tuple[TokenLogprobs, ...] | None = None
    while engine.has_work():
        for step in engine.step().sequences:
            if step.error is not None:
                raise RuntimeError(f"the engine could not compute a chunk: {step.error}")
            told = told if step.prompt_logprobs is None else step.prompt_logprobs
    assert told is not None, "the engine had no more work before it told of the prompt"
    return told
