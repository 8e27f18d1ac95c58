"""What a configuration says of layers, windows and experts, in the words of each family."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.sizing.config_shape import read_kv_shape, read_model_shape
from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.stored_bytes import QUANTISATIONS, weights_bytes

DENSE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def shape_of(**changes: object) -> ModelShape:
    return read_model_shape(ModelFacts(Path("config.json"), {**DENSE, **changes}))


def layers_with_experts(shape: ModelShape) -> list[int]:
    return [number for number, layer in enumerate(shape.layers) if layer.experts]


def windows_of(shape: ModelShape) -> list[int]:
    return [number for number, layer in enumerate(shape.layers) if layer.window]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, list(range(8))),
        ({"decoder_sparse_step": 2}, [1, 3, 5, 7]),
        ({"interleave_moe_layer_step": 4}, [3, 7]),
        ({"moe_layers": [0, 5]}, [0, 5]),
        ({"first_k_dense_replace": 6}, [6, 7]),
        ({"mlp_only_layers": [0, 1]}, [2, 3, 4, 5, 6, 7]),
    ],
)
def test_each_family_says_in_its_own_words_which_layers_have_experts(
    words: dict[str, object], expected: list[int]
) -> None:
    assert layers_with_experts(shape_of(**EXPERTS, **words)) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"sliding_window": 16}, list(range(8))),
        ({"sliding_window": 16, "use_sliding_window": False}, []),
        ({"sliding_window": None}, []),
        ({"sliding_window": 16, "sliding_window_pattern": 4}, [0, 1, 2, 4, 5, 6]),
        ({"sliding_window": 16, "model_type": "gemma3_text"}, [0, 1, 2, 3, 4, 6, 7]),
        ({"attention_chunk_size": 16}, [0, 1, 2, 4, 5, 6]),
        ({"sliding_window": 16, "layer_types": ["sliding_attention"] + ["full_attention"] * 7}, [0]),
    ],
)
def test_each_family_says_in_its_own_words_which_layers_have_windows(
    words: dict[str, object], expected: list[int]
) -> None:
    shape = shape_of(**words)

    assert windows_of(shape) == expected
    kv = read_kv_shape(ModelFacts(Path("config.json"), {**DENSE, **words}))
    assert kv == shape.kv


def test_a_family_that_ties_its_head_needs_not_say_so() -> None:
    assert (shape_of(model_type="gemma3_text").is_tied, shape_of().is_tied) == (True, False)
    assert not shape_of(model_type="gemma3_text", tie_word_embeddings=False).is_tied


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": None}, "hidden_size: found None, expected a whole number of at least 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: found 1000000000, expected a whole number of at most"),
        ({"vocab_size": 1 << 60}, "vocab_size: found .* at most"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 key-value heads"),
        ({**EXPERTS, "num_experts_per_tok": 5}, "5 of 4 experts cannot be active"),
        ({**EXPERTS, "moe_intermediate_size": "wide"}, "moe_intermediate_size: found 'wide'"),
        ({"kv_lora_rank": 8}, "qk_nope_head_dim: found None"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_by_name(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        shape_of(**changes)


def test_keys_and_values_of_a_file_that_says_little_are_unknown() -> None:
    assert read_kv_shape(ModelFacts(Path("config.json"), {"num_hidden_layers": 3})) is None


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from((10**6, 10**12, 10**400)),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(-2, 9), st.just("sliding_attention")), max_size=9),
)
WORDS = (
    *DENSE,
    *EXPERTS,
    "head_dim",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "n_shared_experts",
    "shared_expert_intermediate_size",
    "intermediate_size_mlp",
    "mlp_only_layers",
    "moe_layers",
    "decoder_sparse_step",
    "first_k_dense_replace",
    "sliding_window",
    "sliding_window_pattern",
    "attention_chunk_size",
    "layer_types",
    "tie_word_embeddings",
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw, on a busy machine
@given(changes=st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=4))
def test_whatever_a_configuration_says_it_is_sized_or_refused(changes: dict[str, object]) -> None:
    try:
        shape = shape_of(**changes)
    except ModelFileError:
        return

    assert weights_bytes(shape, QUANTISATIONS["int4"]) > 0
    assert shape.kv.seen_bytes(1000) <= shape.kv.held_bytes(1000)
