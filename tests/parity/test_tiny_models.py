"""Tiny random models of every family in float64, ours against transformers': equal tokens, logits within 1e-9."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from shardline_workers.engine_config import EngineConfig
from tests.parity.greedy_runs import compare, run_greedily
from tests.parity.tiny_transformers import (
    capped_scores,
    exact_oracles,
    reference_logits,
    tiny_deepseek_v2,
    tiny_deepseek_v3,
    tiny_gemma3,
    tiny_llama,
    tiny_mixtral,
    tiny_qwen3,
    tiny_qwen3_moe,
)
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
YARN_SCALING = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 3.0,
    "original_max_position_embeddings": 64,
}
Variants = Mapping[str, Mapping[str, Any]]
LLAMAS: Variants = {
    "grouped heads": {},
    "a key head for each head": {"num_key_value_heads": 6},
    "one key head": {"num_key_value_heads": 1},
    "tied head": {"tie_word_embeddings": True},
    "heads wider than hidden": {"head_dim": 16},
    "Llama 3 scaling": {"rope_parameters": LLAMA3_SCALING},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "YaRN": {"rope_parameters": YARN_SCALING},
}
QWENS: Variants = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 16},
    "YaRN": {"rope_parameters": YARN_SCALING},
}
GEMMAS: Variants = {
    "windows": {},
    "untied": {"tie_word_embeddings": False},
    "windows by a period": {"layer_types": None, "num_hidden_layers": 7},
    "one key head": {"num_key_value_heads": 1, "head_dim": 32},
    "two angles, one stretched": {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        }
    },
    "a window longer than the text": {"sliding_window": 4096},
}
MIXTRALS: Variants = {
    "2 of 5 experts": {},
    "one expert a token": {"num_experts_per_tok": 1},
    "all experts": {"num_local_experts": 3, "num_experts_per_tok": 3},
    "tied head": {"tie_word_embeddings": True},
}
QWEN_MOES: Variants = {
    "3 of 7 experts": {},
    "weights as they are": {"norm_topk_prob": False},
    "a dense layer": {"mlp_only_layers": [1]},
    "experts in every other layer": {"decoder_sparse_step": 2, "num_hidden_layers": 4},
}
DEEPSEEK_YARN = {**YARN_SCALING, "mscale": 1.0, "mscale_all_dim": 0.7}
DEEPSEEKS: Variants = {
    "experts in groups": {},
    "no groups": {"n_group": 1, "topk_group": 1, "n_routed_experts": 7},
    "two shared experts": {"n_shared_experts": 2},
    "weights as they are": {"norm_topk_prob": False, "routed_scaling_factor": 0.7},
    "dense layers alone": {"first_k_dense_replace": 3},
    "queries in one step": {"q_lora_rank": None},
    "YaRN": {"rope_parameters": DEEPSEEK_YARN},
    "halves turn together": {"rope_interleave": False},
    "values as wide as the latent": {"v_head_dim": 24, "kv_lora_rank": 24},
    "one head": {"num_attention_heads": 1, "num_key_value_heads": 1},
}


@pytest.fixture(autouse=True)
def _exact_oracle() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with exact_oracles():
        yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("variant", LLAMAS)
def test_tokens_and_logits_of_llama_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    assert_parity(saved(tiny_llama, LLAMAS[variant], tmp_path), tmp_path)


@pytest.mark.parametrize("variant", QWENS)
def test_tokens_and_logits_of_qwen_3_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    assert_parity(saved(tiny_qwen3, QWENS[variant], tmp_path), tmp_path)


@pytest.mark.parametrize("variant", GEMMAS)
def test_tokens_and_logits_of_gemma_3_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    assert_parity(saved(tiny_gemma3, GEMMAS[variant], tmp_path), tmp_path)


@pytest.mark.parametrize("variant", MIXTRALS)
def test_tokens_and_logits_of_mixtral_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    assert_parity(saved(tiny_mixtral, MIXTRALS[variant], tmp_path), tmp_path)


@pytest.mark.parametrize("variant", QWEN_MOES)
def test_tokens_and_logits_of_qwen_3_moe_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    assert_parity(saved(tiny_qwen3_moe, QWEN_MOES[variant], tmp_path), tmp_path)


def test_experts_that_lie_in_one_tensor_a_layer_are_read_one_by_one(tmp_path: Path) -> None:
    model = tiny_qwen3_moe(mlp_only_layers=[1])
    model.save_pretrained(tmp_path, save_original_format=False)
    assert any("gate_up_proj" in name for name in load_file(tmp_path / "model.safetensors"))

    assert_parity(model, tmp_path)


@pytest.mark.parametrize("variant", DEEPSEEKS)
def test_tokens_and_logits_of_deepseek_v3_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    assert_parity(saved(tiny_deepseek_v3, DEEPSEEKS[variant], tmp_path), tmp_path)


@pytest.mark.parametrize("q_lora_rank", [20, None])
def test_tokens_and_logits_of_deepseek_v2_are_those_of_transformers(q_lora_rank: int | None, tmp_path: Path) -> None:
    assert_parity(saved(tiny_deepseek_v2, {"q_lora_rank": q_lora_rank}, tmp_path), tmp_path)


def test_a_softcap_of_scores_is_that_of_transformers(tmp_path: Path) -> None:
    model = saved(tiny_gemma3, {"attn_logit_softcapping": 5.0, "attn_implementation": "eager"}, tmp_path)

    with capped_scores(5.0):
        assert_parity(model, tmp_path)


def test_a_softcap_of_logits_is_that_of_transformers(tmp_path: Path) -> None:
    model = saved(tiny_gemma3, {"final_logit_softcapping": 3.0}, tmp_path)

    assert_parity(model, tmp_path)


def test_a_sharded_checkpoint_is_read_whole(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2

    assert_parity(model, tmp_path)


def saved(make: Callable[..., PreTrainedModel], changes: Mapping[str, Any], folder: Path) -> PreTrainedModel:
    model = make(**changes)
    model.save_pretrained(folder)
    return model


def assert_parity(model: PreTrainedModel, folder: Path) -> None:
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
