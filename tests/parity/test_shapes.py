"""Every shape gives the tokens of one rank, and those of transformers, in float64; native kernels stay within rounding.

One pool of rank processes computes all of them, one after the other. `make parity` takes every family in every shape
of at most four ranks and prints a table; otherwise a list in which every pair of sizes occurs.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shardline_workers.engine import EngineRequest, Sampling, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.parity.greedy_runs import GreedyRun
from tests.parity.shape_cases import MOST_RANKS, TINY_MODELS, ShapeCase, all_cases, pairwise_cases
from tests.parity.tiny_transformers import exact_oracles, reference_logits
from tests.workers.tiny_checkpoint import model_files

pytestmark = pytest.mark.process

EVERYTHING = "SHARDLINE_PARITY_EVERYTHING"
NUM_TOKENS = 24
NUM_TOP = 8
EXACT = 1e-9  # in float64
# Mean distance of log-probabilities from the exact ones, as a multiple of what one rank of the same kernels is away.
MOST_ROUNDING = 1.5
PROMPTS = [(5,), tuple(range(3, 20)), tuple((11 * number) % 128 for number in range(60)), (9, 9, 9, 2)]
CASES = all_cases() if os.environ.get(EVERYTHING) else pairwise_cases(all_cases())
NATIVE_CASES = CASES if os.environ.get(EVERYTHING) else pairwise_cases(all_cases())[::4]

Texts = dict[str, list[int]]  # request id → tokens
Told = dict[str, list[TokenLogprobs]]  # request id → log-probabilities


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine made of all prompts; every second one was asked with log-probabilities."""

    tokens: Texts
    logprobs: Told


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    pool = RankPool(report=lambda _: None)
    pool.start_children(MOST_RANKS - 1, environment=os.environ)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))


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
    return EngineConfig(
        files=model_files(folder),
        plan=plan,
        dtype="float64" if kernels == "reference" else "auto",
        kernels=kernels,
        kv_cache_tokens=1024,
        max_num_batched_tokens=48,  # long prompts take several steps, beside decodes
        block_size=16 if kernels == "reference" else 32,
        replicas_on_host=64,
    )


def answers(config: EngineConfig, requests: Sequence[EngineRequest], pool: RankPool | None) -> Answers:
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


def greedy_requests() -> list[EngineRequest]:
    return [
        EngineRequest(
            request_id=str(number),
            prompt_ids=prompt,
            sampling=Sampling(temperature=0.0, max_tokens=NUM_TOKENS, num_logprobs=NUM_TOP if number % 2 else None),
        )
        for number, prompt in enumerate(PROMPTS)
    ]


def exact_answers(family: str, folder: Path) -> Answers:
    """Those of one rank, once they have been compared with transformers'."""
    found = answers(config(folder, ParallelPlan(), "reference"), greedy_requests(), None)
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


def largest_difference(found: Told, expected: Told) -> float:
    """Over all positions and all tokens that both tell."""
    return max(
        float((one_row(ours) - one_row(theirs)).abs().max())
        for request_id in expected
        for ours, theirs in zip(found[request_id], expected[request_id], strict=True)
    )


def one_row(told: TokenLogprobs) -> Tensor:
    return torch.tensor([told.chosen, *told.top], dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_greedy_tokens_of_a_shape_are_those_of_one_rank_and_of_transformers(
    case: ShapeCase,
    pool: RankPool,
    folders: Mapping[tuple[str, bool], Path],
    exact: Mapping[str, Answers],
    table: list[str],
) -> None:
    expected = exact[case.family]

    found = answers(config(folders[case.family, False], case.plan, "reference"), greedy_requests(), pool)

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
    texts = answers(config(folder, ParallelPlan(), "reference"), greedy_requests(), None)
    scored = scored_requests(texts.tokens)
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


def scored_requests(texts: Texts) -> list[EngineRequest]:
    """Requests that tell how likely each token of a text is, so that every engine is asked of the same."""
    sampling = Sampling(temperature=0.0, max_tokens=1, num_prompt_logprobs=0)
    return [
        EngineRequest(request_id=str(number), prompt_ids=(*prompt, *texts[str(number)]), sampling=sampling)
        for number, prompt in enumerate(PROMPTS)
    ]


def mean_distance(found: Told, truth: Told) -> float:
    pairs = [
        (ours.chosen, theirs.chosen)
        for request_id in truth
        for ours, theirs in zip(found[request_id], truth[request_id], strict=True)
    ]
    return sum(abs(ours - theirs) for ours, theirs in pairs) / len(pairs)
