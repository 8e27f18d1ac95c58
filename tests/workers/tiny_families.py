"""Small random models of every family, as a folder and as a GGUF file of any type.

Names of GGUF tensors are those of the `gguf` package's own table.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from safetensors.numpy import save_file

from shardline_workers.files.model_source import ModelFiles
from tests.workers.ggml_blocks import model_blocks
from tests.workers.tiny_checkpoint import VOCAB_SIZE, model_files

HIDDEN = 256  # K-quants have blocks of as many
INTERMEDIATE = 256
NUM_LAYERS = 3
NUM_HEADS = 8
NUM_KV_HEADS = 2
HEAD_DIM = 32
MAX_LEN = 1024
WINDOW = 70
GLOBAL_EVERY = 3
NUM_EXPERTS = 5
NUM_ACTIVE = 2
EXPERT_WIDTH = 256

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyFamily:
    """What is different in one family."""

    architecture: str  # of GGUF files
    class_name: str  # in config.json
    settings: Mapping[str, object]
    norms: Mapping[str, int]  # of a layer, with their sizes
    norm_offset: float = 0.0  # a folder has its norms less this
    # In the place of an MLP: the router's name in a folder, and what its experts' gate, up and down are called there.
    experts: tuple[str, tuple[str, str, str]] | None = None
    num_experts: int = NUM_EXPERTS


QWEN3 = TinyFamily(
    architecture="qwen3",
    class_name="Qwen3ForCausalLM",
    settings={"hidden_act": "silu", "rope_theta": 1e6},
    norms={
        "input_layernorm": HIDDEN,
        "post_attention_layernorm": HIDDEN,
        "self_attn.q_norm": HEAD_DIM,
        "self_attn.k_norm": HEAD_DIM,
    },
)
GEMMA3 = TinyFamily(
    architecture="gemma3",
    class_name="Gemma3ForCausalLM",
    settings={
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "query_pre_attn_scalar": HEAD_DIM,
        "sliding_window": WINDOW,
        "sliding_window_pattern": GLOBAL_EVERY,
    },
    norms={
        **QWEN3.norms,
        "pre_feedforward_layernorm": HIDDEN,
        "post_feedforward_layernorm": HIDDEN,
    },
    norm_offset=1.0,
)
MIXTRAL = TinyFamily(
    architecture="llama",
    class_name="MixtralForCausalLM",
    settings={"hidden_act": "silu", "rope_theta": 1e6, "num_local_experts": NUM_EXPERTS, "num_experts_per_tok": 2},
    norms={"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN},
    experts=("block_sparse_moe.gate", ("w1", "w3", "w2")),
)
QWEN3_MOE = TinyFamily(
    architecture="qwen3moe",
    class_name="Qwen3MoeForCausalLM",
    settings={
        **QWEN3.settings,
        "num_experts": NUM_EXPERTS,
        "num_experts_per_tok": NUM_ACTIVE,
        "moe_intermediate_size": EXPERT_WIDTH,
        "norm_topk_prob": True,
    },
    norms=QWEN3.norms,
    experts=("mlp.gate", ("gate_proj", "up_proj", "down_proj")),
)
TINY_FAMILIES: Mapping[str, TinyFamily] = {"gemma3": GEMMA3, "qwen3": QWEN3, "mixtral": MIXTRAL, "qwen3-moe": QWEN3_MOE}


def random_tensors(family: TinyFamily, *, seed: int = 1) -> Tensors:
    """By their names in a folder; norms as they multiply. The output matrix is the embedding."""
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return generator.normal(scale=scale / columns**0.5, size=(rows, columns)).astype(np.float32)

    def norm(size: int) -> np.ndarray:
        return (1 + generator.normal(scale=0.1, size=size)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": matrix(VOCAB_SIZE, HIDDEN), "model.norm.weight": norm(HIDDEN)}
    for number in range(NUM_LAYERS):
        prefix = f"model.layers.{number}."
        tensors |= {f"{prefix}{name}.weight": norm(size) for name, size in family.norms.items()}
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": matrix(NUM_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}self_attn.k_proj.weight": matrix(NUM_KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}self_attn.v_proj.weight": matrix(NUM_KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}self_attn.o_proj.weight": matrix(HIDDEN, NUM_HEADS * HEAD_DIM),
        }
        shapes = _mlp_shapes(family)
        tensors |= {f"{prefix}{name}.weight": matrix(*shape) for name, shape in shapes.items()}
    return tensors


def _mlp_shapes(family: TinyFamily) -> dict[str, tuple[int, int]]:
    if family.experts is None:
        up = (INTERMEDIATE, HIDDEN)
        return {"mlp.gate_proj": up, "mlp.up_proj": up, "mlp.down_proj": (HIDDEN, INTERMEDIATE)}
    router, names = family.experts
    up = (EXPERT_WIDTH, HIDDEN)
    shapes = {router: (family.num_experts, HIDDEN)}
    for expert in range(family.num_experts):
        prefix = f"{router.rpartition('.')[0]}.experts.{expert}."
        shapes |= {f"{prefix}{name}": shape for name, shape in zip(names, (up, up, up[::-1]), strict=True)}
    return shapes


def write_family_folder(folder: Path, family: TinyFamily, tensors: Tensors) -> ModelFiles:
    """The model as Hugging Face lays it out, in F32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": [family.class_name],
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": MAX_LEN,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        **family.settings,
    }
    (folder / "config.json").write_text(json.dumps(config))
    stored = {name: tensor - family.norm_offset if tensor.ndim == 1 else tensor for name, tensor in tensors.items()}
    save_file(stored, str(folder / "model.safetensors"))
    return model_files(folder)


def write_family_gguf(path: Path, family: TinyFamily, tensors: Tensors, *, form: str) -> ModelFiles:
    """The same model with its matrices in a GGUF type; those of K-quants are other random numbers."""
    writer = GGUFWriter(path, family.architecture)
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(MAX_LEN)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    if family is GEMMA3:
        writer.add_sliding_window(WINDOW)
        writer.add_uint32(gguf.Keys.Attention.SLIDING_WINDOW_PATTERN.format(arch="gemma3"), GLOBAL_EVERY)
    architecture = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    if family.experts is not None:
        writer.add_expert_count(family.num_experts)
        writer.add_expert_used_count(NUM_ACTIVE)
        writer.add_expert_feed_forward_length(EXPERT_WIDTH)
    names = gguf.get_tensor_name_map(architecture, NUM_LAYERS)
    if family.architecture == "llama":
        tensors = {name: _turned_by_neighbours(name, tensor) for name, tensor in tensors.items()}
    for number, (name, tensor) in enumerate(_stacked(tensors).items()):
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs is not None
        if tensor.ndim == 1 or theirs.endswith("ffn_gate_inp.weight"):
            writer.add_tensor(theirs, tensor)
        else:
            kind = GGMLQuantizationType[form]
            writer.add_tensor(theirs, _packed(tensor, kind, seed=number), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model_files(path)


def _turned_by_neighbours(name: str, tensor: np.ndarray) -> np.ndarray:
    """Rows of queries and keys as llama.cpp's converter orders them for this architecture."""
    if "q_proj" not in name and "k_proj" not in name:
        return tensor
    halves = tensor.reshape(-1, 2, HEAD_DIM // 2, HIDDEN)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def _stacked(tensors: Tensors) -> Tensors:
    """The same with all experts of a layer in one tensor, under the name without their number."""
    stacks: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        stacks.setdefault(re.sub(r"experts\.\d+\.", "experts.", name), []).append(tensor)
    return {name: np.stack(parts) if ".experts." in name else parts[0] for name, parts in stacks.items()}


def _packed(tensor: np.ndarray, kind: GGMLQuantizationType, *, seed: int) -> np.ndarray:
    if tensor.ndim == 3:
        return np.stack([_packed(matrix, kind, seed=seed + 1000 * number) for number, matrix in enumerate(tensor)])
    if kind.name.endswith("_K"):
        return model_blocks(kind, *tensor.shape, std=tensor.shape[1] ** -0.5, seed=seed)
    packed: np.ndarray = quantize(tensor, kind)
    return packed
