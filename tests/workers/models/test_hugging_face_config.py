import json
from pathlib import Path

import numpy as np
import pytest

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.kernels.operands import Activation
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_style import DecoderStyle
from shardline_workers.models.hugging_face_config import HuggingFaceConfig
from shardline_workers.models.rotary_scaling import LinearScaling, Llama3Scaling, YarnScaling, yarn_magnitude
from tests.workers.tiny_checkpoint import tiny_config

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(**changes: object) -> DecoderShape:
    values = {key: value for key, value in (tiny_config() | changes).items() if value != "absent"}
    config = HuggingFaceConfig(ModelFacts(Path("m/config.json"), values))
    return config.decoder_shape(config.family())


def test_sizes_are_read() -> None:
    shape = read()

    assert (shape.hidden_size, shape.num_layers, shape.vocab_size, shape.max_len) == (32, 2, 96, 256)
    assert (shape.attention.num_heads, shape.attention.num_kv_heads, shape.attention.head_dim) == (4, 2, 8)
    assert (shape.is_tied, shape.norm_epsilon, shape.rotary.theta) == (False, 1e-5, 10000.0)


def test_absent_keys_have_the_architectures_defaults() -> None:
    shape = read(head_dim="absent", num_key_value_heads="absent", rope_theta="absent", rms_norm_eps="absent")

    assert (shape.attention.num_kv_heads, shape.attention.head_dim) == (4, 8)
    assert (shape.rotary.theta, shape.norm_epsilon) == (10000.0, 1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
        {"rope_theta": "absent", "rope_parameters": LLAMA3 | {"rope_theta": 500000.0}},
    ],
    ids=["older file", "newer file"],
)
def test_llama_3_scaling_is_read_from_both_places(changes: dict[str, object]) -> None:
    rotary = read(**changes).rotary

    assert rotary.theta == 500000.0
    assert rotary.scaling == Llama3Scaling(
        factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_len=8192
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, YarnScaling(factor=4.0, original_max_len=256, magnitude=yarn_magnitude(4.0))),
        (
            {"original_max_position_embeddings": 64, "attention_factor": 1.5, "beta_fast": 8.0, "beta_slow": 2.0},
            YarnScaling(factor=4.0, original_max_len=64, magnitude=1.5, fast_turns=8.0, slow_turns=2.0),
        ),
        (
            {"mscale": 2.0, "mscale_all_dim": 0.5, "truncate": False},
            YarnScaling(
                factor=4.0,
                original_max_len=256,
                magnitude=yarn_magnitude(4.0, 2.0) / yarn_magnitude(4.0, 0.5),
                whole_bounds=False,
            ),
        ),
    ],
    ids=["shortest", "with everything", "with shares"],
)
def test_yarn_is_read_with_its_defaults(told: dict[str, object], expected: YarnScaling) -> None:
    assert read(rope_scaling={"type": "yarn", "factor": 4.0, **told}).rotary.scaling == expected


def test_qwen_3_norms_its_heads() -> None:
    shape = read(architectures=["Qwen3ForCausalLM"], head_dim="absent", sliding_window=4096, use_sliding_window=False)

    assert shape.style == DecoderStyle(norms_heads=True)
    assert shape.attention.head_dim == 128
    assert shape.windowed is None
    assert shape.tensor_shapes()["layers.1.query_norm"] == (128,)


GEMMA3 = {"architectures": ["Gemma3ForCausalLM"], "hidden_act": "absent", "num_hidden_layers": 7}


def test_gemma_3_is_read_as_older_files_have_it() -> None:
    shape = read(
        **GEMMA3,
        hidden_activation="gelu_pytorch_tanh",
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        sliding_window=512,
        sliding_window_pattern=3,
        query_pre_attn_scalar=168,
        tie_word_embeddings="absent",
    )

    assert shape.style == DecoderStyle(activation=Activation.GELU_TANH, norms_heads=True, norms_deltas=True)
    assert [shape.window_of(layer) for layer in range(7)] == [512, 512, None, 512, 512, None, 512]
    assert (shape.rotary_of(2).theta, shape.rotary_of(2).scaling) == (1e6, LinearScaling(factor=8.0))
    assert (shape.rotary_of(3).theta, shape.rotary_of(3).scaling) == (1e4, None)
    assert (shape.score_divisor, shape.norm_offset, shape.is_tied) == (168, 1, True)
    assert (shape.score_softcap, shape.logit_softcap) == (None, None)
    assert shape.tensor_shapes()["layers.6.mlp_delta_norm"] == (32,)


def test_gemma_3_is_read_as_newer_files_have_it() -> None:
    shape = read(
        **GEMMA3,
        rope_theta="absent",
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "linear", "rope_theta": 3e4, "factor": 2.0},
        },
        sliding_window=512,
        layer_types=["full_attention", "sliding_attention"] * 3 + ["full_attention"],
        final_logit_softcapping=30.0,
        attn_logit_softcapping=50.0,
    )

    assert [shape.window_of(layer) for layer in range(7)] == [None, 512] * 3 + [None]
    assert (shape.rotary_of(0).theta, shape.rotary_of(0).scaling) == (5e5, None)
    assert (shape.rotary_of(1).theta, shape.rotary_of(1).scaling) == (3e4, LinearScaling(factor=2.0))
    assert (shape.score_divisor, shape.score_softcap, shape.logit_softcap) == (256, 50, 30)


def test_gemma_3_sees_everything_in_every_sixth_layer_unless_told_otherwise() -> None:
    shape = read(**GEMMA3, rope_theta="absent", sliding_window=512)

    assert [layer for layer in range(7) if shape.window_of(layer) is None] == [5]
    assert (shape.rotary_of(5).theta, shape.rotary_of(0).theta) == (1e6, 1e4)


@pytest.mark.parametrize(
    ("told", "scale"),
    [
        ({"torch_dtype": "bfloat16"}, 25.25),
        ({"dtype": "bfloat16"}, 25.25),
        ({"dtype": "float16"}, 25.296875),
        ({"dtype": "float32"}, float(np.float32(640**0.5))),
        ({}, float(np.float32(640**0.5))),
    ],
    ids=str,
)
def test_the_embeddings_scale_is_rounded_as_it_was_in_training(told: dict[str, object], scale: float) -> None:
    assert read(**GEMMA3, hidden_size=640, sliding_window=512, **told).embedding_scale == scale


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_activation": "relu"}, "hidden_activation: found 'relu', expected gelu_pytorch_tanh"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: found True"),
        ({"layer_types": ["full_attention"]}, "layer_types: found .*expected 7 times one of full_attention, sliding"),
        ({"layer_types": ["chunked_attention"] * 7}, "layer_types: found .*chunked_attention"),
        ({"sliding_window": 0}, "config.json: the attention window is 0"),
        ({"sliding_window_pattern": 0}, "config.json: every 0th layer sees all tokens"),
        ({"query_pre_attn_scalar": 0}, "config.json: the divisor of attention scores is 0"),
        ({"attn_logit_softcapping": 0}, "config.json: the softcap of attention scores is 0"),
        ({"num_hidden_layers": 1 << 62}, "config.json: num_layers is 4611686018427387904"),
        ({"rope_parameters": {"full_attention": 3}}, "full_attention: found 3, expected an object"),
    ],
    ids=str,
)
def test_settings_of_gemma_3_that_are_not_supported_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read(**GEMMA3 | changes)


def test_linear_scaling_is_read_under_its_old_key() -> None:
    assert read(rope_scaling={"type": "linear", "factor": 2.0}).rotary.scaling == LinearScaling(factor=2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, r"found \['MambaForCausalLM'\], expected one of LlamaForCausalLM"),
        ({"architectures": None}, "architectures: found None"),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"]},
            r"found \['Gemma3ForConditionalGeneration'\], .*see or hear .* take the GGUF file of its text model",
        ),
        ({"attention_bias": True}, "attention_bias: found True, expected False: nothing else is supported for llama"),
        ({"mlp_bias": True}, "mlp_bias: found True"),
        ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected silu"),
        (
            {"rope_scaling": {"rope_type": "longrope"}},
            "rope_type: found 'longrope', expected one of default, linear, llama3, yarn",
        ),
        ({"rope_scaling": {"rope_type": "yarn"}}, "factor: found None, expected a number for this rope_type"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": 1}}, "truncate: found 1, expected true or"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 0.5}}, "config.json: beta_fast of the rot"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor: found None, expected a number for this rope_type"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 10**400}}, "factor: found 1000.*, expected a finite"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "config.json: factor of the rotary embedding is 0"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"rope_type: found \['yarn'\], expected a string"),
        ({"rope_scaling": [1]}, r"rope_scaling: found \[1\], expected an object"),
        ({"rope_parameters": {"rope_theta": {}}}, "rope_theta: found {}, expected a finite number"),
        ({"rope_theta": 0}, "config.json: theta of the rotary embedding is 0"),
        ({"architectures": [["LlamaForCausalLM"]]}, "architectures: found"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings: found 'false', expected true or false"),
        ({"num_hidden_layers": 1 << 62}, "config.json: num_layers is 4611686018427387904"),
        ({"hidden_size": "absent"}, "hidden_size: found None, expected a whole number"),
        ({"hidden_size": True}, "hidden_size: found True, expected a whole number"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps: found 'small', expected a finite number"),
        ({"num_key_value_heads": 3}, "config.json: 4 heads cannot share 3"),
        ({"num_attention_heads": 0}, "config.json: num_heads is 0"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read(**changes)


@pytest.mark.parametrize("content", [b"{", b"[1]"], ids=["broken", "no object"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(ModelFileError, match=r"config\.json: not a configuration"):
        HuggingFaceConfig.read(tmp_path)


def test_a_missing_file_names_no_family(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json: architectures: found None"):
        HuggingFaceConfig.read(tmp_path).family()


def test_a_folders_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_config()))

    assert HuggingFaceConfig.read(tmp_path).family().name == "llama"
