"""A small random Llama checkpoint as a folder, written without a framework."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from shardline_workers.files.model_source import ModelFiles, ModelKind

VOCAB_SIZE = 96
HIDDEN = 32
INTERMEDIATE = 48
NUM_LAYERS = 2
NUM_HEADS = 4
NUM_KV_HEADS = 2
HEAD_DIM = 8
MAX_LEN = 256


def tiny_config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": MAX_LEN,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }


def tiny_tensors(seed: int = 1, *, num_layers: int = NUM_LAYERS) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return generator.normal(scale=0.4, size=(rows, columns))

    def norm() -> np.ndarray:
        return 1 + generator.normal(scale=0.1, size=HIDDEN)

    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB_SIZE, HIDDEN),
        "model.norm.weight": norm(),
        "lm_head.weight": matrix(VOCAB_SIZE, HIDDEN),
    }
    for number in range(num_layers):
        prefix = f"model.layers.{number}."
        tensors |= {
            f"{prefix}input_layernorm.weight": norm(),
            f"{prefix}post_attention_layernorm.weight": norm(),
            f"{prefix}self_attn.q_proj.weight": matrix(NUM_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}self_attn.k_proj.weight": matrix(NUM_KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}self_attn.v_proj.weight": matrix(NUM_KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}self_attn.o_proj.weight": matrix(HIDDEN, NUM_HEADS * HEAD_DIM),
            f"{prefix}mlp.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            f"{prefix}mlp.up_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            f"{prefix}mlp.down_proj.weight": matrix(HIDDEN, INTERMEDIATE),
        }
    return tensors


def write_tiny_checkpoint(
    folder: Path, *, tensors: dict[str, np.ndarray] | None = None, config: dict[str, object] | None = None
) -> ModelFiles:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or tiny_config()))
    save_file(tensors or tiny_tensors(), str(folder / "model.safetensors"))
    return model_files(folder)


def model_files(path: Path) -> ModelFiles:
    kind = ModelKind.FOLDER if path.is_dir() else ModelKind.GGUF
    return ModelFiles(source=str(path), kind=kind, path=path, digest=_digest(path))


def _digest(path: Path) -> str:
    """Of the content: packed weights of equal digests are one file on the disk."""
    told = hashlib.blake2b(digest_size=8)
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        told.update(file.read_bytes())
    return told.hexdigest()
