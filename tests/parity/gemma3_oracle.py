"""Gemma 3 270M in `transformers`, from its GGUF file by the `gguf` package: none of our weights code."""

from pathlib import Path

import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map
from gguf.quants import dequantize
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from shardline_workers.files.gguf_file import GgufFile

_NUM_LAYERS = 18


def gemma3_in_transformers(path: Path) -> Gemma3ForCausalLM:
    """The 270M model in float32."""
    config = Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=_NUM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
        max_position_embeddings=32768,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        model = Gemma3ForCausalLM(config)
    model.to_empty(device="cpu")
    names = get_tensor_name_map(MODEL_ARCH.GEMMA3, _NUM_LAYERS)
    with GgufFile.open(path) as file:
        weights = {}
        for name in model.state_dict():
            theirs = names.get_name(name, try_suffixes=(".weight",))
            if name != "lm_head.weight":
                assert theirs is not None
                weights[name] = _weight(file, theirs, offset=-1.0 if "norm" in name else 0.0)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    # Angles and the embedding's scale are no weights: they are computed anew.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.model.embed_tokens.embed_scale = torch.tensor(config.hidden_size**0.5)
    return model.eval()


def _weight(file: GgufFile, name: str, *, offset: float) -> Tensor:
    """Norms lie in these files with the 1 that transformers adds."""
    tensor = file.tensors[name]
    packed = torch.frombuffer(bytearray(file.tensor_bytes(name)), dtype=torch.uint8).numpy()
    weights = dequantize(packed, GGMLQuantizationType(tensor.ggml_type)).reshape(tensor.shape)
    return torch.from_numpy(weights) + offset
