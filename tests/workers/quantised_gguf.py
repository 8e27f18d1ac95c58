"""A small random Llama model as a GGUF file in any of the formats that native kernels take."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from shardline_workers.files.model_source import ModelFiles
from tests.workers.tiny_checkpoint import VOCAB_SIZE, model_files

HIDDEN = 64
INTERMEDIATE = 96
NUM_LAYERS = 2
NUM_HEADS = 3
NUM_KV_HEADS = 1
HEAD_DIM = 32
MAX_LEN = 1024

# What each kind of matrix is stored in, by the name of the whole.
FORMATS: Mapping[str, Mapping[str, str]] = {
    **{name: {"": name} for name in ("Q4_0", "Q4_1", "Q8_0", "F16", "BF16", "F32")},
    # As files mix them: values and the embedding finer than the rest; one layer input for two formats.
    "mixed": {"": "Q4_1", "attn_v": "Q8_0", "token_embd": "Q8_0", "ffn_down": "BF16", "ffn_up": "Q4_0"},
}


def write_quantised_gguf(
    path: Path, form: str, *, seed: int = 1, head_dim: int = HEAD_DIM, gain: float = 2.4
) -> ModelFiles:
    """Writes the model in one of FORMATS; its output matrix is its embedding.

    A gain well above 1 makes its answers varied and it magnifies every rounding; trained models lie about 1.
    """
    generator = np.random.default_rng(seed)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(MAX_LEN)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_rope_freq_base(10000.0)

    def add_matrix(name: str, rows: int, columns: int, *, scale: float = gain / HIDDEN**0.5) -> None:
        stored = FORMATS[form].get(name.split(".")[-2], FORMATS[form][""])
        kind = GGMLQuantizationType[stored]
        weight = generator.normal(scale=scale, size=(rows, columns)).astype(np.float32)
        writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(name, (1 + generator.normal(scale=0.1, size=HIDDEN)).astype(np.float32))

    add_matrix("token_embd.weight", VOCAB_SIZE, HIDDEN, scale=0.6)
    add_norm("output_norm.weight")
    for number in range(NUM_LAYERS):
        prefix = f"blk.{number}."
        add_norm(f"{prefix}attn_norm.weight")
        add_norm(f"{prefix}ffn_norm.weight")
        add_matrix(f"{prefix}attn_q.weight", NUM_HEADS * head_dim, HIDDEN)
        add_matrix(f"{prefix}attn_k.weight", NUM_KV_HEADS * head_dim, HIDDEN)
        add_matrix(f"{prefix}attn_v.weight", NUM_KV_HEADS * head_dim, HIDDEN)
        add_matrix(f"{prefix}attn_output.weight", HIDDEN, NUM_HEADS * head_dim)
        add_matrix(f"{prefix}ffn_gate.weight", INTERMEDIATE, HIDDEN)
        add_matrix(f"{prefix}ffn_up.weight", INTERMEDIATE, HIDDEN)
        add_matrix(f"{prefix}ffn_down.weight", HIDDEN, INTERMEDIATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model_files(path)
