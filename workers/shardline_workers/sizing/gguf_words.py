"""The sizes in a GGUF file's metadata under the names that a Hugging Face config.json has for them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shardline_workers.files.model_facts import ModelFacts

_EMBEDDING = "token_embd.weight"
_HEAD = "output.weight"

# GGUF's architecture → `model_type`; others have the same name, or none that matters to sizes.
_MODEL_TYPES = MappingProxyType(
    {"deepseek2": "deepseek_v3", "qwen3moe": "qwen3_moe", "llama4": "llama4_text", "gemma3": "gemma3_text"}
)
_NUMBERS = MappingProxyType(
    {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "sliding_window": "attention.sliding_window",
        "num_experts_per_tok": "expert_used_count",
        "moe_intermediate_size": "expert_feed_forward_length",
        "n_shared_experts": "expert_shared_count",
        "first_k_dense_replace": "leading_dense_block_count",
        "interleave_moe_layer_step": "interleave_moe_layer_step",
        "q_lora_rank": "attention.q_lora_rank",
        "kv_lora_rank": "attention.kv_lora_rank",
    }
)


def in_config_words(
    path: Path, metadata: Mapping[str, Any], tensor_shapes: Mapping[str, tuple[int, ...]]
) -> ModelFacts:
    """Facts as config.json would tell them; what the file does not say is missing.

    Raises:
        ModelFileError: a number is none.
    """
    facts = ModelFacts(path, metadata)
    architecture = facts.text("general.architecture") or ""
    values = dict(_values(facts, architecture, tensor_shapes))
    return ModelFacts(path, {key: value for key, value in values.items() if value is not None})


def _values(
    facts: ModelFacts, architecture: str, tensor_shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, object]]:
    yield "model_type", _MODEL_TYPES.get(architecture, architecture)
    for ours, theirs in _NUMBERS.items():
        yield ours, _largest(facts, f"{architecture}.{theirs}")
    yield "num_experts", facts.whole(f"{architecture}.expert_count") or None
    yield "vocab_size", _vocabulary(facts, tensor_shapes)
    yield "tie_word_embeddings", _HEAD not in tensor_shapes if _EMBEDDING in tensor_shapes else None
    yield from _head_sizes(facts, architecture)
    if architecture == "llama4":  # the width under that name is that of its few dense layers
        yield "intermediate_size_mlp", _largest(facts, "llama4.feed_forward_length")
        yield "intermediate_size", facts.whole("llama4.expert_feed_forward_length")
        yield "attention_chunk_size", facts.whole("llama4.attention.chunk_size")
    pattern = facts.values.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        yield "layer_types", ["sliding_attention" if flag else "full_attention" for flag in pattern]
    else:
        yield "sliding_window_pattern", facts.whole(f"{architecture}.attention.sliding_window_pattern")


def _head_sizes(facts: ModelFacts, architecture: str) -> Iterator[tuple[str, object]]:
    key = facts.whole(f"{architecture}.attention.key_length")
    if facts.whole(f"{architecture}.attention.kv_lora_rank") is None:
        yield "head_dim", key
        return
    # Newer conversions tell the cached vector's size under key_length, and the heads' under …_mla.
    rope = facts.whole(f"{architecture}.rope.dimension_count") or 0
    key = facts.whole(f"{architecture}.attention.key_length_mla") or key or rope
    yield "qk_rope_head_dim", rope
    yield "qk_nope_head_dim", max(0, key - rope)
    value = facts.whole(f"{architecture}.attention.value_length_mla")
    yield "v_head_dim", value or facts.whole(f"{architecture}.attention.value_length")


def _vocabulary(facts: ModelFacts, tensor_shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    if _EMBEDDING in tensor_shapes:
        return tensor_shapes[_EMBEDDING][0]
    tokens = facts.values.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, tuple) else None


def _largest(facts: ModelFacts, key: str) -> int | None:
    """A number; of a list, which some files have by layer, the largest."""
    value = facts.values.get(key)
    if not isinstance(value, tuple):
        return facts.whole(key)
    return max((number for number in value if isinstance(number, int)), default=None)
