"""The tiny DeepSeek as llama.cpp's converter writes it: a layer's experts in one tensor, heads split or not."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from shardline_workers.files.model_source import ModelFiles
from tests.workers import tiny_deepseek as tiny
from tests.workers.tiny_checkpoint import model_files

YARN_FACTOR = 4.0
YARN_SHARE = 0.7  # mscale_all_dim


def write_tiny_deepseek_gguf(
    path: Path, tensors: tiny.Tensors, *, form: str = "F32", is_split: bool, is_stretched: bool = False
) -> ModelFiles:
    """The model with its matrices in a GGUF type.

    Args:
        path: of the file.
        tensors: by their names in a folder.
        form: name of the type.
        is_split: heads' matrices lie as newer converters lay them.
        is_stretched: positions are, by YaRN.
    """
    writer = GGUFWriter(path, "deepseek2")
    _write_sizes(writer, is_split=is_split)
    _write_experts(writer)
    if is_stretched:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(YARN_FACTOR)
        writer.add_rope_scaling_orig_ctx_len(64)
        writer.add_rope_scaling_yarn_log_mul(0.1 * YARN_SHARE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, tiny.NUM_LAYERS)
    for name, tensor in _as_converted(tensors, is_split=is_split).items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        kind = GGMLQuantizationType[form if tensor.ndim > 1 and "ffn_gate_inp" not in theirs else "F32"]
        writer.add_tensor(theirs, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model_files(path)


def _write_sizes(writer: GGUFWriter, *, is_split: bool) -> None:
    writer.add_block_count(tiny.NUM_LAYERS)
    writer.add_context_length(tiny.MAX_LEN)
    writer.add_embedding_length(tiny.HIDDEN)
    writer.add_feed_forward_length(tiny.INTERMEDIATE)
    writer.add_head_count(tiny.NUM_HEADS)
    writer.add_head_count_kv(1 if is_split else tiny.NUM_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e4)
    writer.add_rope_dimension_count(tiny.ROPE_DIM)
    writer.add_q_lora_rank(tiny.QUERY_RANK)
    writer.add_kv_lora_rank(tiny.KV_RANK)
    query_dim = tiny.NOPE_DIM + tiny.ROPE_DIM
    if is_split:
        writer.add_key_length(tiny.KV_RANK + tiny.ROPE_DIM)
        writer.add_value_length(tiny.KV_RANK)
        writer.add_key_length_mla(query_dim)
        writer.add_value_length_mla(tiny.VALUE_DIM)
    else:
        writer.add_key_length(query_dim)
        writer.add_value_length(tiny.VALUE_DIM)


def _write_experts(writer: GGUFWriter) -> None:
    writer.add_leading_dense_block_count(1)
    writer.add_expert_count(tiny.NUM_EXPERTS)
    writer.add_expert_used_count(3)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(tiny.EXPERT_WIDTH)
    writer.add_expert_weights_scale(2.5)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_group_count(4)
    writer.add_expert_group_used_count(2)


def _as_converted(tensors: tiny.Tensors, *, is_split: bool) -> tiny.Tensors:
    converted = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for kind in ("gate_proj", "up_proj", "down_proj"):
        prefix = "model.layers.1.mlp.experts"
        stack = [tensors[f"{prefix}.{expert}.{kind}.weight"] for expert in range(tiny.NUM_EXPERTS)]
        converted[f"{prefix}.{kind}.weight"] = np.stack(stack)
    bias = converted.pop("model.layers.1.mlp.gate.e_score_correction_bias")
    converted["model.layers.1.mlp.gate.e_score_correction.bias"] = bias
    if is_split:
        for number in range(tiny.NUM_LAYERS):
            prefix = f"model.layers.{number}.self_attn"
            heads = converted.pop(f"{prefix}.kv_b_proj.weight").reshape(tiny.NUM_HEADS, -1, tiny.KV_RANK)
            keys, values = np.split(heads, [tiny.NOPE_DIM], axis=1)
            converted[f"{prefix}.k_b_proj.weight"] = np.ascontiguousarray(keys.transpose(0, 2, 1))
            converted[f"{prefix}.v_b_proj.weight"] = np.ascontiguousarray(values)
    return converted
