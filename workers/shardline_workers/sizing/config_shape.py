"""From the facts of a config.json, whoever wrote them, to the numbers that decide a model's size.

It reads any decoder whose configuration has the usual names: a model can be sized that cannot be served.
"""

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.sizing.kv_shape import KvShape
from shardline_workers.sizing.model_shape import Experts, GroupedAttention, LatentAttention, LayerShape, ModelShape

_MOST_LAYERS = 1_000  # keeps a hostile number from filling memory and time; the largest known models have 126
_MOST_EXPERTS = 100_000
_MOST = 1 << 32  # of any other size; keeps products small
_WINDOWED = ("sliding_attention", "chunked_attention")
_NORMS_HEADS = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text")
_NORMS_DELTAS = ("gemma2", "gemma3", "gemma3_text")
_IS_TIED = ("gemma", "gemma2", "gemma3", "gemma3_text")  # unless they say otherwise
_GEMMA3_GLOBAL_EVERY = 6
_LLAMA4_GLOBAL_EVERY = 4
_REMEDY = "Name another copy of the model, or one of the published shapes."


def read_model_shape(facts: ModelFacts) -> ModelShape:
    """The model's sizes.

    Raises:
        ModelFileError: a number is missing or makes no sense.
    """
    family = facts.text("model_type") or ""
    try:
        return ModelShape(
            family=family,
            vocab_size=_needed(facts, "vocab_size"),
            hidden_size=_needed(facts, "hidden_size"),
            attention=_latent(facts) if _is_latent(facts) else _grouped(facts, family),
            layers=_layers(facts, family),
            is_tied=_is_tied(facts, family),
            context_tokens=_needed(facts, "max_position_embeddings"),
            norms_per_layer=4 if family in _NORMS_DELTAS else 2,
        )
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError.because(facts.path, str(error), remedy=_REMEDY) from error


def read_kv_shape(facts: ModelFacts) -> KvShape | None:
    """Sizes of keys and values alone, of a model that may say little; None where it does not say them.

    Raises:
        ModelFileError: a number makes no sense.
    """
    num_layers = facts.whole("num_hidden_layers")
    if not num_layers:
        return None
    windows = _windows(facts, min(num_layers, _MOST_LAYERS), facts.text("model_type") or "")
    if _is_latent(facts):
        key_dim = (facts.whole("kv_lora_rank") or 0) + (facts.whole("qk_rope_head_dim") or 0)
        return KvShape(num_heads=1, key_dim=key_dim, value_dim=0, windows=windows)
    num_heads, head_dim = kv_heads(facts), head_size(facts)
    if num_heads is None or head_dim is None:
        return None
    return KvShape(num_heads=num_heads, key_dim=head_dim, value_dim=head_dim, windows=windows)


def kv_heads(facts: ModelFacts) -> int | None:
    """Key-value heads; where nothing is said of them, as many as heads."""
    return facts.whole("num_key_value_heads") or facts.whole("num_attention_heads")


def head_size(facts: ModelFacts) -> int | None:
    """Dimensions of a head: as said, else the heads' share of the hidden size."""
    hidden_size, num_heads = facts.whole("hidden_size"), facts.whole("num_attention_heads")
    share = hidden_size // num_heads if hidden_size and num_heads else None
    return facts.whole("head_dim") or share


def _is_latent(facts: ModelFacts) -> bool:
    return bool(facts.whole("kv_lora_rank"))


def _is_tied(facts: ModelFacts, family: str) -> bool:
    told = facts.flag("tie_word_embeddings")
    return family in _IS_TIED if told is None else told


def _grouped(facts: ModelFacts, family: str) -> GroupedAttention:
    num_heads = _needed(facts, "num_attention_heads")
    return GroupedAttention(
        num_heads=num_heads,
        num_kv_heads=kv_heads(facts) or num_heads,
        head_dim=_bounded(facts, "head_dim", head_size(facts) or 1, _MOST),
        norms_heads=family in _NORMS_HEADS,
    )


def _latent(facts: ModelFacts) -> LatentAttention:
    return LatentAttention(
        num_heads=_needed(facts, "num_attention_heads"),
        query_rank=_needed(facts, "q_lora_rank") if facts.whole("q_lora_rank") else None,
        kv_rank=_needed(facts, "kv_lora_rank"),
        nope_dim=_needed(facts, "qk_nope_head_dim"),
        rope_dim=_needed(facts, "qk_rope_head_dim"),
        value_dim=_needed(facts, "v_head_dim"),
    )


def _layers(facts: ModelFacts, family: str) -> tuple[LayerShape, ...]:
    num_layers = _needed(facts, "num_hidden_layers", most=_MOST_LAYERS)
    experts = _experts(facts, family)
    with_experts = _expert_layers(facts, num_layers) if experts else frozenset[int]()
    width_key = "intermediate_size_mlp" if facts.whole("intermediate_size_mlp") else "intermediate_size"
    width = _needed(facts, width_key) if len(with_experts) < num_layers else 0
    windows = _windows(facts, num_layers, family)
    return tuple(
        LayerShape(experts=experts, window=window)
        if number in with_experts
        else LayerShape(mlp_width=width, window=window)
        for number, window in enumerate(windows)
    )


def _experts(facts: ModelFacts, family: str) -> Experts | None:
    told = (facts.whole(key) for key in ("num_local_experts", "num_experts", "n_routed_experts"))
    num_experts = next((number for number in told if number), None)
    if num_experts is None:
        return None
    width = facts.whole("moe_intermediate_size") or _needed(facts, "intermediate_size")
    num_shared = 1 if family == "llama4_text" else facts.whole("n_shared_experts") or 0
    shared_width = facts.whole("shared_expert_intermediate_size") or num_shared * width
    return Experts(
        num_experts=_bounded(facts, "num_experts", num_experts, _MOST_EXPERTS),
        num_active=_needed(facts, "num_experts_per_tok"),
        width=_bounded(facts, "moe_intermediate_size", width, _MOST),
        shared_width=_bounded(facts, "n_shared_experts", shared_width, _MOST),
        has_bias=family == "deepseek_v3",
    )


def _expert_layers(facts: ModelFacts, num_layers: int) -> frozenset[int]:
    """Layers with experts: all but the first ones (DeepSeek), every n-th (Llama 4, Qwen), or as listed."""
    listed = facts.values.get("moe_layers")
    if isinstance(listed, list):
        return frozenset(number for number in listed if isinstance(number, int) and 0 <= number < num_layers)
    step = facts.whole("interleave_moe_layer_step") or facts.whole("decoder_sparse_step") or 1
    dense = frozenset(facts.wholes("mlp_only_layers"))
    first = facts.whole("first_k_dense_replace") or 0
    return frozenset(number for number in range(first, num_layers) if (number + 1) % step == 0) - dense


def _windows(facts: ModelFacts, num_layers: int, family: str) -> tuple[int | None, ...]:
    """Of each layer the tokens that it sees: named layer for layer, or all layers but every n-th."""
    window = facts.whole("attention_chunk_size") or facts.whole("sliding_window")
    if not window or facts.values.get("use_sliding_window") is False:
        return (None,) * num_layers
    types = facts.values.get("layer_types")
    if isinstance(types, list) and len(types) >= num_layers:
        return tuple(window if kind in _WINDOWED else None for kind in types[:num_layers])
    period = facts.whole("sliding_window_pattern") or _usual_period(facts, family)
    return tuple(window if period is None or (number + 1) % period else None for number in range(num_layers))


def _usual_period(facts: ModelFacts, family: str) -> int | None:
    if facts.whole("attention_chunk_size"):
        return facts.whole("no_rope_layer_interval") or _LLAMA4_GLOBAL_EVERY
    return {"gemma3": _GEMMA3_GLOBAL_EVERY, "gemma3_text": _GEMMA3_GLOBAL_EVERY, "gemma2": 2}.get(family)


def _needed(facts: ModelFacts, key: str, *, most: int = _MOST) -> int:
    value = facts.whole(key, least=1)
    if value is None:
        raise facts.refusal(key, value=None, bound="a whole number of at least 1")
    return _bounded(facts, key, value, most)


def _bounded(facts: ModelFacts, key: str, value: int, most: int) -> int:
    if value > most:
        raise facts.refusal(key, value=value, bound=f"a whole number of at most {most}")
    return value
