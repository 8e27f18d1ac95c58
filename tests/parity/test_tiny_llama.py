"""A tiny random Llama in float64, ours against transformers': equal tokens, logits within 1e-9."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from shardline_workers.sharded_engine import EngineConfig
from tests.parity.greedy_runs import compare, run_greedily
from tests.parity.transformers_llama import norm_in_full, reference_logits, tiny_llama
from tests.workers.tiny_checkpoint import model_files

NUM_TOKENS = 40
PROMPTS = [(5,), tuple(range(3, 20)), tuple((11 * number) % 128 for number in range(90))]
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "a key head for each head": {"num_key_value_heads": 6},
    "one key head": {"num_key_value_heads": 1},
    "tied head": {"tie_word_embeddings": True},
    "heads wider than hidden": {"head_dim": 16},
    "Llama 3 scaling": {"rope_parameters": LLAMA3_SCALING},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
}


@pytest.fixture(autouse=True)
def _exact_oracle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(LlamaRMSNorm, "forward", norm_in_full)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_and_logits_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    model = tiny_llama(**VARIANTS[variant])
    model.save_pretrained(tmp_path)

    assert_parity(model, tmp_path)


def test_a_sharded_checkpoint_is_read_whole(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2

    assert_parity(model, tmp_path)


def assert_parity(model: Any, folder: Path) -> None:
    config = EngineConfig(
        files=model_files(folder),
        dtype="float64",
        kv_cache_tokens=1024,
        max_num_batched_tokens=48,  # the long prompt takes several steps, beside decodes
        block_size=16,
        replicas_on_host=64,
    )

    runs = run_greedily(config, PROMPTS, NUM_TOKENS)

    for run in runs:
        assert len(run.token_ids) == NUM_TOKENS
        comparison = compare(run, reference_logits(model, run), tie=0.0)
        assert comparison.largest_difference < 1e-9
    assert len({token_id for run in runs for token_id in run.token_ids}) > 20, (
        "a model that repeats itself shows little"
    )
