"""The engine on CUDA devices computes what it computes on a CPU: greedy tokens of a tiny checkpoint in float64."""

from pathlib import Path

import pytest
import torch

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.workers.tiny_checkpoint import VOCAB_SIZE, write_tiny_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def greedy_tokens(folder: Path, device: str, plan: ParallelPlan | None = None) -> dict[str, list[int]]:
    config = EngineConfig(
        files=write_tiny_checkpoint(folder),
        plan=plan or ParallelPlan(),
        device=device,
        dtype="float64",
        kernels="reference",
        kv_cache_tokens=1024,
        block_size=16,
    )
    engine = load_engine(config, report=lambda _: None)
    for number in range(4):
        prompt = tuple((7 * place + number) % VOCAB_SIZE for place in range(5 + 20 * number))
        sampling = Sampling(temperature=0.0, max_tokens=24)
        engine.add(EngineRequest(request_id=str(number), prompt_ids=prompt, sampling=sampling))
    tokens: dict[str, list[int]] = {str(number): [] for number in range(4)}
    while engine.has_work():
        for step in engine.step().sequences:
            tokens[step.request_id].extend(step.token_ids)
    engine.close()
    return tokens


def test_greedy_tokens_of_a_gpu_are_those_of_a_cpu(tmp_path: Path) -> None:
    on_cpu = greedy_tokens(tmp_path / "cpu", "cpu")

    on_gpu = greedy_tokens(tmp_path / "gpu", "cuda")

    assert on_gpu == on_cpu


@pytest.mark.process
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices here")
@pytest.mark.parametrize("plan", [ParallelPlan(tp=2), ParallelPlan(pp=2), ParallelPlan(dp=2)], ids=str)
def test_two_ranks_that_exchange_by_nccl_give_the_tokens_of_a_cpu(tmp_path: Path, plan: ParallelPlan) -> None:
    on_cpu = greedy_tokens(tmp_path / "cpu", "cpu")

    on_gpus = greedy_tokens(tmp_path / "gpus", "cuda", plan)

    assert on_gpus == on_cpu
