"""The engine on a CUDA device computes what it computes on a CPU: greedy tokens of tiny checkpoints in float64."""

from pathlib import Path

import pytest
import torch

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from tests.workers.tiny_checkpoint import VOCAB_SIZE, write_tiny_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def greedy_tokens(folder: Path, device: str) -> dict[str, list[int]]:
    config = EngineConfig(
        files=write_tiny_checkpoint(folder),
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
