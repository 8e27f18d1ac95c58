"""Asks engines of any shape the same, in a pool of rank processes that is meshed anew for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shardline_workers.engine import EngineRequest, Sampling, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.gang.rank_pool import RankPool

NUM_TOP = 8  # log-probabilities told at each position
Prompts = Sequence[tuple[int, ...]]
Texts = dict[str, list[int]]  # request id → tokens
Told = dict[str, list[TokenLogprobs]]  # request id → log-probabilities


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine made of all prompts; every second one was asked with log-probabilities."""

    tokens: Texts
    logprobs: Told


def answers(config: EngineConfig, requests: Sequence[EngineRequest], pool: RankPool | None) -> Answers:
    """Runs all requests at once, to the end."""
    engine = load_engine(config, report=lambda _: None, pool=pool)
    found = Answers({}, {})
    for request in requests:
        engine.add(request)
        found.tokens[request.request_id], found.logprobs[request.request_id] = [], []
    while engine.has_work():
        for step in engine.step().sequences:
            assert step.error is None, step.error
            found.tokens[step.request_id].extend(step.token_ids)
            found.logprobs[step.request_id].extend((*(step.prompt_logprobs or ()), *step.logprobs))
        engine.check_integrity()
    engine.close()
    return found


def greedy_requests(prompts: Prompts, num_tokens: int) -> list[EngineRequest]:
    """One for each prompt."""
    return [
        EngineRequest(
            request_id=str(number),
            prompt_ids=prompt,
            sampling=Sampling(temperature=0.0, max_tokens=num_tokens, num_logprobs=NUM_TOP if number % 2 else None),
        )
        for number, prompt in enumerate(prompts)
    ]


def largest_difference(found: Told, expected: Told) -> float:
    """Over all positions and all tokens that both tell."""
    return max(
        float((one_row(ours) - one_row(theirs)).abs().max())
        for request_id in expected
        for ours, theirs in zip(found[request_id], expected[request_id], strict=True)
    )


def one_row(told: TokenLogprobs) -> Tensor:
    return torch.tensor([told.chosen, *told.top], dtype=torch.float64)


def scored_requests(prompts: Prompts, texts: Texts) -> list[EngineRequest]:
    """Requests that tell how likely each token of a text is, so that every engine is asked of the same."""
    sampling = Sampling(temperature=0.0, max_tokens=1, num_prompt_logprobs=0)
    return [
        EngineRequest(request_id=str(number), prompt_ids=(*prompt, *texts[str(number)]), sampling=sampling)
        for number, prompt in enumerate(prompts)
    ]


def mean_distance(found: Told, truth: Told) -> float:
    """Of the log-probabilities of what was chosen or given."""
    pairs = [
        (ours.chosen, theirs.chosen)
        for request_id in truth
        for ours, theirs in zip(found[request_id], truth[request_id], strict=True)
    ]
    return sum(abs(ours - theirs) for ours, theirs in pairs) / len(pairs)
