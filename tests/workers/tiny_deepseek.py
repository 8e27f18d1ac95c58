"""A small random DeepSeek-V3 checkpoint as a folder, written without a framework: a dense layer, then one of experts.

Its five heads are no even share for any number of ranks.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from shardline_workers.files.model_source import ModelFiles
from tests.workers.tiny_checkpoint import VOCAB_SIZE, model_files

HIDDEN = 64
INTERMEDIATE = 96
NUM_LAYERS = 2
NUM_HEADS = 5
# All but one are whole blocks of quantised weights.
QUERY_RANK = 64
KV_RANK = 64
NOPE_DIM = 32
ROPE_DIM = 16
VALUE_DIM = 32
NUM_EXPERTS = 8
EXPERT_WIDTH = 64
MAX_LEN = 512

Tensors = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def tiny_deepseek_config() -> dict[str, object]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_act": "silu",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "q_lora_rank": QUERY_RANK,
        "kv_lora_rank": KV_RANK,
        "qk_nope_head_dim": NOPE_DIM,
        "qk_rope_head_dim": ROPE_DIM,
        "v_head_dim": VALUE_DIM,
        "max_position_embeddings": MAX_LEN,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 1,
        "n_routed_experts": NUM_EXPERTS,
        "num_experts_per_tok": 3,
        "n_group": 4,
        "topk_group": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": EXPERT_WIDTH,
    }


def write_tiny_deepseek(folder: Path, *, changes: dict[str, object] | None = None, seed: int = 1) -> ModelFiles:
    """The checkpoint, in F32; its matrices are numbers of bfloat16, which native kernels keep as they are.

    Args:
        folder: that it goes to.
        changes: of its configuration: `q_lora_rank` may be None.
        seed: of its numbers.
    """
    config = tiny_deepseek_config() | (changes or {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = random_tensors(two_steps=config["q_lora_rank"] is not None, seed=seed)
    save_file(tensors, str(folder / "model.safetensors"))
    return model_files(folder)


def random_tensors(*, two_steps: bool = True, seed: int = 1) -> Tensors:
    """By their names in a folder."""
    generator = np.random.default_rng(seed)
    return {name: _random(generator, shape) for name, shape in _shapes(two_steps=two_steps)}


def _random(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return (1 + generator.normal(scale=0.1, size=shape)).astype(np.float32)
    numbers = torch.from_numpy(generator.normal(scale=2.0 * shape[1] ** -0.5, size=shape))
    return numbers.to(torch.bfloat16).to(torch.float32).numpy()


def _shapes(*, two_steps: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCAB_SIZE, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB_SIZE, HIDDEN)
    for number in range(NUM_LAYERS):
        mlp = _mlp_shapes("mlp", INTERMEDIATE) if number == 0 else _expert_shapes()
        for name, shape in (_attention_shapes() | _query_shapes(two_steps=two_steps) | mlp).items():
            yield f"model.layers.{number}.{name}.weight", shape
        if number > 0:
            yield f"model.layers.{number}.mlp.gate.e_score_correction_bias", (NUM_EXPERTS,)


def _query_shapes(*, two_steps: bool) -> Shapes:
    size = NUM_HEADS * (NOPE_DIM + ROPE_DIM)
    if not two_steps:
        return {"self_attn.q_proj": (size, HIDDEN)}
    return {
        "self_attn.q_a_proj": (QUERY_RANK, HIDDEN),
        "self_attn.q_a_layernorm": (QUERY_RANK,),
        "self_attn.q_b_proj": (size, QUERY_RANK),
    }


def _expert_shapes() -> Shapes:
    shapes: Shapes = {"mlp.gate": (NUM_EXPERTS, HIDDEN)}
    for name in ("shared_experts", *(f"experts.{expert}" for expert in range(NUM_EXPERTS))):
        shapes |= _mlp_shapes(f"mlp.{name}", EXPERT_WIDTH)
    return shapes


def _mlp_shapes(prefix: str, width: int) -> Shapes:
    return {
        f"{prefix}.gate_proj": (width, HIDDEN),
        f"{prefix}.up_proj": (width, HIDDEN),
        f"{prefix}.down_proj": (HIDDEN, width),
    }


def _attention_shapes() -> Shapes:
    return {
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
        "self_attn.kv_a_proj_with_mqa": (KV_RANK + ROPE_DIM, HIDDEN),
        "self_attn.kv_a_layernorm": (KV_RANK,),
        "self_attn.kv_b_proj": (NUM_HEADS * (NOPE_DIM + VALUE_DIM), KV_RANK),
        "self_attn.o_proj": (HIDDEN, NUM_HEADS * VALUE_DIM),
    }
