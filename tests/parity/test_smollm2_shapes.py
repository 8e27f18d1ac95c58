"""SmolLM2 (9 heads on 3 key-value heads, 30 layers) in shapes that cut it unevenly, on both kernels.

In float32 the tokens are transformers', or at a difference the reference's two likeliest logits lie closer than 1e-3,
and equal again when it is forced past that.
"""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shardline_workers.engine_config import EngineConfig
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.parity.greedy_runs import GreedyRun
from tests.parity.shape_answers import answers, greedy_requests, mean_distance, scored_requests
from tests.parity.shape_cases import EVERYTHING
from tests.parity.smollm2_file import smollm2_gguf
from tests.parity.smollm2_oracle import smollm2_in_transformers, smollm2_tokenizer
from tests.parity.tiny_transformers import reference_logits
from tests.workers.tiny_checkpoint import model_files

pytestmark = [pytest.mark.process, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(300)]

NUM_TOKENS = 24
TIE = 1e-3
MOST_ROUNDING = 1.25
TEXTS = ("What is gravity?", "Once upon a time, in a village by the river,", "def fibonacci(n):\n    ")
ALL_PLANS = (
    ParallelPlan(tp=2, pp=2),
    ParallelPlan(tp=3),
    ParallelPlan(tp=2),
    ParallelPlan(tp=4),
    ParallelPlan(pp=2),
    ParallelPlan(pp=3),
    ParallelPlan(dp=2),
)
PLANS = ALL_PLANS if os.environ.get(EVERYTHING) else ALL_PLANS[:2]


@pytest.fixture(scope="module")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smollm2_gguf(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def prompts(gguf_path: Path) -> list[tuple[int, ...]]:
    tokenizer = smollm2_tokenizer(gguf_path)
    return [tuple(tokenizer.encode(text).ids) for text in TEXTS]


def config(path: Path, plan: ParallelPlan, kernels: str) -> EngineConfig:
    return EngineConfig(
        files=model_files(path),
        plan=plan,
        dtype="float32" if kernels == "reference" else "auto",
        kernels=kernels,
        kv_cache_tokens=1024,
        max_num_batched_tokens=64,
        replicas_on_host=64,
    )


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_greedy_tokens_in_float32_are_those_of_transformers(
    plan: ParallelPlan, gguf_path: Path, prompts: list[tuple[int, ...]], pool: RankPool, table: list[str]
) -> None:
    torch.set_num_threads(1)  # threads of torch spin at barriers, and ranks are more than cores

    found = answers(config(gguf_path, plan, "reference"), greedy_requests(prompts, NUM_TOKENS), pool)

    oracle = smollm2_in_transformers(gguf_path)
    num_ties = 0
    for number, prompt in enumerate(prompts):
        tokens = found.tokens[str(number)]
        assert len(tokens) == NUM_TOKENS
        num_ties += ties(tokens, reference_logits(oracle, GreedyRun(prompt, tokens)))
    table.append(f"{'smollm2 ' + str(plan):32} float32  {len(prompts) * NUM_TOKENS} tokens equal, {num_ties} ties")


def ties(token_ids: list[int], logits: Tensor) -> int:
    """How often a token is not the reference's, which then has two that are as likely."""
    num_ties = 0
    for step, (token_id, row) in enumerate(zip(token_ids, logits, strict=True)):
        if token_id != int(row.argmax()):
            assert float(row.max() - row[token_id]) < TIE, f"step {step}: {token_id} for {int(row.argmax())}"
            num_ties += 1
    return num_ties


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_native_log_probabilities_are_within_rounding_and_bits_come_again(
    plan: ParallelPlan, gguf_path: Path, prompts: list[tuple[int, ...]], pool: RankPool, table: list[str]
) -> None:
    exact, alone = config(gguf_path, ParallelPlan(), "reference"), config(gguf_path, ParallelPlan(), "native")
    texts = answers(alone, greedy_requests(prompts, NUM_TOKENS), None).tokens
    scored = scored_requests(prompts, texts)
    truth, of_one = answers(exact, scored, None).logprobs, answers(alone, scored, None).logprobs

    first = answers(config(gguf_path, plan, "native"), scored, pool).logprobs
    again = answers(config(gguf_path, plan, "native"), scored, pool).logprobs

    assert first == again
    rounding, rounding_alone = mean_distance(first, truth), mean_distance(of_one, truth)
    assert 0 < rounding < MOST_ROUNDING * rounding_alone
    table.append(
        f"{'smollm2 ' + str(plan):32} native   mean distance {rounding:.1e} of float32's log-probabilities, one rank's "
        f"is {rounding_alone:.1e}; bits equal twice"
    )
