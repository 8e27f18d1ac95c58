"""SmolLM2-135M on native kernels: logits near those of the float64 reference on the same weights, a sensible answer.

What differs is rounding alone: inputs of linear layers to int8 by blocks of 32, keys, values and weights of attention
to bfloat16. Measured: 3e-3 nats of divergence on average.
"""

import pytest
import torch
from torch import Tensor

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang.one_rank_executor import OneRankExecutor
from shardline_workers.kernels.native_library import NativeLibrary
from tests.parity.greedy_runs import GreedyRun, run_greedily
from tests.parity.smollm2_file import smollm2_gguf
from tests.parity.smollm2_oracle import smollm2_tokenizer
from tests.workers.tiny_checkpoint import model_files

QUESTION = "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n"
TEXT = "Once upon a time, in a village by the river, there lived an old clockmaker who never slept. Every evening"
NUM_TOKENS = 12
MAX_DIVERGENCE = 0.03  # nats, of a token's distribution
MEAN_DIVERGENCE = 0.006
TIE = 0.3  # logits: int8 inputs may decide between tokens that are closer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return model_files(smollm2_gguf(tmp_path_factory.mktemp("smollm2")))


def config(files: ModelFiles, kernels: str) -> EngineConfig:
    return EngineConfig(
        files=files,
        kernels=kernels,
        dtype="float64" if kernels == "reference" else "auto",
        max_num_seqs=4,
        max_num_batched_tokens=128,
        kv_cache_tokens=1024,
        # The reference takes any size: with blocks of one token it computes each token of a forced run once.
        block_size=1 if kernels == "reference" else 32,
        replicas_on_host=64,
    )


def forced_logits(files: ModelFiles, runs: list[GreedyRun]) -> list[Tensor]:
    """The reference's logits before each token of the runs, [num_tokens, vocab] float64 for each."""
    engine = load_engine(config(files, "reference"), report=lambda _: None)
    executor = engine._executor
    assert isinstance(executor, OneRankExecutor) and executor._runner is not None
    runner = executor._runner
    forced = []
    for number, run in enumerate(runs):
        rows = []
        for length in range(len(run.token_ids)):
            prompt = (*run.prompt_ids, *run.token_ids[:length])
            request_id = f"{number}.{length}"
            sampling = Sampling(temperature=0.0, max_tokens=1)
            engine.add(EngineRequest(request_id=request_id, prompt_ids=prompt, sampling=sampling))
            while engine.has_work():
                engine.step()
            rows.append(runner.logits[0].clone())
        forced.append(torch.stack(rows))
    engine.close()
    return forced


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_logits_lie_within_the_formats_rounding_of_float64(files: ModelFiles, native_library: NativeLibrary) -> None:
    tokenizer = smollm2_tokenizer(files.path)
    prompts = [tuple(tokenizer.encode(text).ids) for text in (QUESTION, TEXT)]

    runs = run_greedily(config(files, "native"), prompts, NUM_TOKENS)

    oracle = torch.cat(forced_logits(files, runs))
    ours = torch.cat([torch.stack(run.logits) for run in runs]).double()
    divergences = (oracle.softmax(dim=1) * (oracle.log_softmax(dim=1) - ours.log_softmax(dim=1))).sum(dim=1)
    print(
        f"\nnative SmolLM2: {len(ours)} tokens, divergence {float(divergences.mean()):.1e} nats on average,"
        f" {float(divergences.max()):.1e} at most"
    )
    assert float(divergences.mean()) < MEAN_DIVERGENCE
    assert float(divergences.max()) < MAX_DIVERGENCE
    chosen = ours.argmax(dim=1)
    behind = oracle.amax(dim=1) - oracle.gather(1, chosen[:, None])[:, 0]
    assert float(behind.max()) < TIE, "a token was chosen that the reference finds clearly less likely"


@pytest.mark.model
@pytest.mark.timeout(120)
def test_a_greedy_answer_is_sensible(files: ModelFiles, native_library: NativeLibrary) -> None:
    tokenizer = smollm2_tokenizer(files.path)

    (run,) = run_greedily(config(files, "native"), [tuple(tokenizer.encode(QUESTION).ids)], 64)

    answer = tokenizer.decode(run.token_ids).replace(" ", "").replace("Ġ", " ")
    assert "curvature of spacetime" in answer or "force" in answer
    assert "gravity" in answer.lower()
