"""Every shape gives the tokens of one rank, and those of transformers, in float64; native kernels stay within rounding.

One pool of rank processes computes all of them, one after the other. `make parity` takes every family in every shape
of at most four ranks and prints a table; otherwise a list in which every pair of sizes occurs.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from shardline_workers.engine_config import EngineConfig
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.parity.greedy_runs import GreedyRun
from tests.parity.shape_answers import (
    Answers,
    answers,
    greedy_requests,
    largest_difference,
    mean_distance,
    scored_requests,
)
from tests.parity.shape_cases import DEVICE, EVERYTHING, TINY_MODELS, ShapeCase, all_cases, pairwise_cases
from tests.parity.tiny_transformers import exact_oracles, reference_logits
from tests.workers.tiny_checkpoint import model_files

pytestmark = pytest.mark.process

NUM_TOKENS = 24
EXACT = 1e-9  # in float64
# Mean distance of log-probabilities from the exact ones, as a multiple of what one rank of the same kernels is away.
MOST_ROUNDING = 1.5
PROMPTS = [(5,), tuple(range(3, 20)), tuple((11 * number) % 128 for number in range(60)), (9, 9, 9, 2)]
CASES = all_cases() if os.environ.get(EVERYTHING) else pairwise_cases(all_cases())
NATIVE_CASES = CASES if os.environ.get(EVERYTHING) else pairwise_cases(all_cases())[::4]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, bool], Path]:
    """A checkpoint of each family, and one that native kernels take."""
    folders: dict[tuple[str, bool], Path] = {}
    for family, model in TINY_MODELS.items():
        for native in (False, True):
            folder = tmp_path_factory.mktemp(f"{family}-{'native' if native else 'exact'}")
            model.make(**(model.for_native if native else {})).save_pretrained(folder)
            folders[family, native] = folder
    return folders


@pytest.fixture(scope="module")
def exact(folders: Mapping[tuple[str, bool], Path]) -> Mapping[str, Answers]:
    """One rank's answers, which are those of transformers."""
    families = {case.family for case in CASES}
    return {family: exact_answers(family, folders[family, False]) for family in sorted(families)}


def config(folder: Path, plan: ParallelPlan, kernels: str) -> EngineConfig:
    device = os.environ.get(DEVICE, "cpu") if kernels == "reference" else "cpu"
    if device == "cuda" and plan.num_ranks > torch.cuda.device_count():
        pytest.skip(f"there are {torch.cuda.device_count()} GPUs for {plan.num_ranks} ranks")
    return EngineConfig(
        files=model_files(folder),
        plan=plan,
        device=device if plan.num_ranks > 1 else "cpu",
        dtype="float64" if kernels == "reference" else "auto",
        kernels=kernels,
        kv_cache_tokens=1024,
        max_num_batched_tokens=48,  # long prompts take several steps, beside decodes
        block_size=16 if kernels == "reference" else 32,
        replicas_on_host=64,
    )


def exact_answers(family: str, folder: Path) -> Answers:
    """Those of one rank, once they have been compared with transformers'."""
    found = answers(config(folder, ParallelPlan(), "reference"), greedy_requests(PROMPTS, NUM_TOKENS), None)
    model = TINY_MODELS[family].make()
    with exact_oracles():
        for number, prompt in enumerate(PROMPTS):
            tokens = found.tokens[str(number)]
            logits = reference_logits(model, GreedyRun(prompt, tokens))
            assert tokens == logits.argmax(dim=-1).tolist(), f"{family}: prompt {number}"
            if number % 2:
                told = logits.log_softmax(dim=-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
                ours = torch.tensor([one.chosen for one in found.logprobs[str(number)]], dtype=torch.float64)
                assert float((told - ours).abs().max()) < EXACT
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_greedy_tokens_of_a_shape_are_those_of_one_rank_and_of_transformers(
    case: ShapeCase,
    pool: RankPool,
    folders: Mapping[tuple[str, bool], Path],
    exact: Mapping[str, Answers],
    table: list[str],
) -> None:
    expected = exact[case.family]

    found = answers(
        config(folders[case.family, False], case.plan, "reference"), greedy_requests(PROMPTS, NUM_TOKENS), pool
    )

    assert found.tokens == expected.tokens
    difference = largest_difference(found.logprobs, expected.logprobs)
    assert difference < EXACT
    num_tokens = sum(map(len, found.tokens.values()))
    table.append(f"{case.name:32} float64  {num_tokens} tokens equal, log-probabilities within {difference:.1e}")


@pytest.mark.parametrize("case", NATIVE_CASES, ids=lambda case: case.name)
def test_native_log_probabilities_of_a_shape_are_within_rounding_and_its_bits_come_again(
    case: ShapeCase,
    pool: RankPool,
    folders: Mapping[tuple[str, bool], Path],
    table: list[str],
) -> None:
    folder = folders[case.family, True]
    texts = answers(config(folder, ParallelPlan(), "reference"), greedy_requests(PROMPTS, NUM_TOKENS), None)
    scored = scored_requests(PROMPTS, texts.tokens)
    truth = answers(config(folder, ParallelPlan(), "reference"), scored, None).logprobs
    alone = answers(config(folder, ParallelPlan(), "native"), scored, None).logprobs

    first = answers(config(folder, case.plan, "native"), scored, pool).logprobs
    again = answers(config(folder, case.plan, "native"), scored, pool).logprobs

    assert first == again
    rounding, rounding_alone = mean_distance(first, truth), mean_distance(alone, truth)
    assert 0 < rounding < MOST_ROUNDING * rounding_alone
    table.append(
        f"{case.name:32} native   mean distance {rounding:.1e} of the exact log-probabilities, one rank's is "
        f"{rounding_alone:.1e}; bits equal twice"
    )
