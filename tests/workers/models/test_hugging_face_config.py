import json
from pathlib import Path

import pytest

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.hugging_face_config import HuggingFaceConfig
from shardline_workers.models.rotary import LinearScaling, Llama3Scaling
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


def test_linear_scaling_is_read_under_its_old_key() -> None:
    assert read(rope_scaling={"type": "linear", "factor": 2.0}).rotary.scaling == LinearScaling(factor=2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, r"found \['MambaForCausalLM'\], expected one of LlamaForCausalLM"),
        ({"architectures": None}, "architectures: found None"),
        ({"attention_bias": True}, "attention_bias: found True, expected False: nothing else is supported for llama"),
        ({"mlp_bias": True}, "mlp_bias: found True"),
        ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected silu"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config: found .*awq.*, expected no such key"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type: found 'yarn', expected one of default, linear, llama3"),
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
