"""Perplexity of a text, counted as `llama-perplexity` counts it, so that the two can stand side by side.

The text's tokens are cut into chunks of equal length, what is left over is dropped. In each chunk only tokens of the
second half count, so that each has at least half a chunk before it: with n tokens in a chunk, tokens n/2 + 1 … n - 1.
Every counted token is asked for by a request of its own whose prompt are the chunk's tokens before it; the prefix cache
makes that cheap.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.ranks.model_runner import ModelRunner
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan
from shardline_workers.sharded_engine import ShardedEngine


@dataclass(frozen=True, slots=True)
class TextPerplexity:
    """What the text is worth to a model."""

    perplexity: float
    num_chunks: int
    num_tokens: int  # that counted


def counted_tokens(token_ids: Sequence[int], chunk_tokens: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """(tokens before it, token) for every token that counts."""
    for begin in range(0, len(token_ids) - chunk_tokens + 1, chunk_tokens):
        chunk = tuple(token_ids[begin : begin + chunk_tokens])
        for place in range(chunk_tokens // 2 + 1, chunk_tokens):
            yield chunk[:place], chunk[place]


def prompt_perplexity(engine: ShardedEngine, token_ids: Sequence[int], *, chunk_tokens: int) -> TextPerplexity:
    """Computes it with an engine that has no other work.

    Raises:
        ValueError: the text is shorter than two chunks.
    """
    if len(token_ids) < 2 * chunk_tokens:
        raise ValueError(f"the text has {len(token_ids)} tokens; it needs at least two chunks of {chunk_tokens}")
    runner = _ListeningRunner(engine._open_runner)
    engine._runner = runner  # type: ignore[assignment]
    pending = list(enumerate(counted_tokens(token_ids, chunk_tokens)))
    for number, (_, target) in pending:
        runner.request_to_target[str(number)] = target
    for number, (prompt, _) in pending:
        sampling = Sampling(temperature=0.0, max_tokens=1)
        engine.add(EngineRequest(request_id=str(number), prompt_ids=prompt, sampling=sampling))
        while engine.has_work() and engine.capacity().free_slots == 0:
            engine.step()
    while engine.has_work():
        engine.step()
    losses = list(runner.request_to_loss.values())
    assert len(losses) == len(pending), f"{len(losses)} of {len(pending)} tokens were computed"
    num_chunks = len(token_ids) // chunk_tokens
    return TextPerplexity(math.exp(math.fsum(losses) / len(losses)), num_chunks, len(losses))


class _ListeningRunner:
    """A model runner that notes how unlikely the wanted tokens were."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.request_to_target: dict[str, int] = {}
        self.request_to_loss: dict[str, float] = {}  # nats

    def execute(self, plan: StepPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        """See `ModelRunner.execute`."""
        answer = self._runner.execute(plan, num_threads=num_threads)
        for row, chunk in enumerate(chunk for chunk in plan.chunks if chunk.samples):
            request_id = chunk.key.request_id
            self.request_to_loss[request_id] = _loss(self._runner.logits[row], self.request_to_target[request_id])
        return answer


def _loss(logits: Tensor, target: int) -> float:
    """Minus the logarithm of the target's probability; logits are [vocab]."""
    return -float(logits.double().log_softmax(dim=0)[target])
