"""Parameters counted from a configuration are those of the model that `transformers` makes of it, in every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.sizing.config_shape import read_model_shape
from shardline_workers.sizing.model_parts import num_parameters

DENSE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}
LATENT = {
    "num_key_value_heads": 6,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma3_text": {"sliding_window": 64, "tie_word_embeddings": True},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 2},
    "llama4_text": {
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 96,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 64,
    },
    "deepseek_v3": LATENT,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_counted_to_the_parameter(family: str) -> None:
    settings = DENSE | FAMILIES[family]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))

    shape = read_model_shape(ModelFacts(Path("config.json"), {"model_type": family, **settings}))

    biases = shape.layers[-1].experts.num_experts if family == "deepseek_v3" and shape.layers[-1].experts else 0
    buffers = biases * sum(1 for layer in shape.layers if layer.experts)  # a buffer there, weights in the checkpoint
    assert num_parameters(shape) == sum(parameter.numel() for parameter in model.parameters()) + buffers
