"""SmolLM2 in `transformers`, from its GGUF file by the `gguf` package's dequantisation: none of our weights code."""

from pathlib import Path

import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from shardline_workers.files.gguf_file import GgufFile

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NUM_HEADS = {"attn_q": 9, "attn_k": 3}


def smollm2_in_transformers(path: Path) -> LlamaForCausalLM:
    """The 135M model in float32."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(
        config
    )  # its angles are no weights, so they are computed anew
    with GgufFile.open(path) as file:
        weights = {_transformers_name(name): _weight(file, name) for name in file.tensors}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def smollm2_tokenizer(path: Path) -> Tokenizer:
    """Good enough for prompts: byte-level BPE of the file's tokens and merges."""
    with GgufFile.open(path) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        merges = file.metadata["tokenizer.ggml.merges"]
    assert isinstance(tokens, tuple)
    assert isinstance(merges, tuple)
    vocab = {str(token): number for number, token in enumerate(tokens)}
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def _transformers_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, number, layer_name, kind = name.split(".")
    return f"model.layers.{number}.{_LAYER_NAMES[layer_name]}.{kind}"


def _weight(file: GgufFile, name: str) -> Tensor:
    tensor = file.tensors[name]
    packed = torch.frombuffer(bytearray(file.tensor_bytes(name)), dtype=torch.uint8).numpy()
    weight = torch.from_numpy(dequantize(packed, GGMLQuantizationType(tensor.ggml_type)).reshape(tensor.shape).copy())
    kind = name.split(".")[-2]
    return _halves_from_neighbours(weight, _NUM_HEADS[kind]) if kind in _NUM_HEADS else weight


def _halves_from_neighbours(weight: Tensor, num_heads: int) -> Tensor:
    """Undoes the order that llama.cpp's converter gives to rows of queries and keys."""
    num_rows, num_columns = weight.shape
    pairs = weight.view(num_heads, num_rows // num_heads // 2, 2, num_columns)
    return pairs.transpose(1, 2).reshape(num_rows, num_columns)
