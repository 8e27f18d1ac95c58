"""The sizes of well-known models: to the parameter, and as everybody knows them."""

import pytest

from shardline_workers.sizing.model_parts import num_active_parameters, num_parameters
from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.published_shapes import published_names, published_shape
from shardline_workers.sizing.stored_bytes import QUANTISATIONS, weights_bytes


def the_shape(name: str) -> ModelShape:
    shape = published_shape(name)
    assert shape is not None
    return shape


@pytest.mark.parametrize("name", published_names())
def test_every_published_configuration_can_be_read(name: str) -> None:
    assert num_parameters(the_shape(name)) >= num_active_parameters(the_shape(name)) > 1e8


# The metadata of the safetensors files on the hub tell these: total_size / 2, or the parameters that the hub counts.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.3-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
        ("smollm2-135m", 134_515_008),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("qwen3-235b-a22b", 235_093_634_560),
        ("mixtral-8x7b", 46_702_792_704),
        ("mixtral-8x22b", 140_630_071_296),
        ("gemma-3-1b", 999_885_952),
        ("deepseek-v3", 671_026_419_200),
    ],
)
def test_parameters_are_counted_exactly(name: str, parameters: int) -> None:
    assert num_parameters(the_shape(name)) == parameters


@pytest.mark.parametrize(
    ("name", "quantisation", "gigabytes"),
    [
        ("llama-3.1-8b", "fp16", 16),
        ("qwen3-32b", "fp16", 64),
        ("llama-3.3-70b", "fp16", 140),
        ("llama-3.3-70b", "q4_0", 39),
        ("llama-3.3-70b", "int4", 39),
        ("llama-3.3-70b", "q4_k_m", 43.1),  # as llama.cpp's README has it
        ("mixtral-8x7b", "fp16", 94),
        ("llama-4-maverick", "bf16", 800),
        ("deepseek-v3", "bf16", 1300),
        ("deepseek-v3", "fp8", 671),
    ],
)
def test_the_usual_sizing_table_comes_out_within_a_tenth(name: str, quantisation: str, gigabytes: float) -> None:
    assert weights_bytes(the_shape(name), QUANTISATIONS[quantisation]) / 1e9 == pytest.approx(gigabytes, rel=0.1)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("mixtral-8x7b", 12.9), ("qwen3-30b-a3b", 3.3), ("llama-4-maverick", 17), ("deepseek-v3", 37)],
)
def test_a_token_is_multiplied_with_the_active_experts_only(name: str, billions: float) -> None:
    assert num_active_parameters(the_shape(name)) / 1e9 == pytest.approx(billions, rel=0.1)


@pytest.mark.parametrize(
    ("name", "token_bytes"),
    [
        ("llama-3.1-8b", 32 * 8 * 128 * 2 * 2),
        ("llama-3.3-70b", 80 * 8 * 128 * 2 * 2),
        ("deepseek-v3", 61 * (512 + 64) * 2),  # one latent vector, as the DeepSeek-V2 paper has it
        ("gemma-3-27b", 62 * 16 * 128 * 2 * 2),
    ],
)
def test_a_token_takes_keys_and_values_in_every_layer(name: str, token_bytes: int) -> None:
    assert the_shape(name).kv.held_bytes(1) == token_bytes


def test_names_are_read_in_any_case_and_unknown_ones_are_none() -> None:
    assert published_shape("Qwen3-32B") == published_shape("qwen3-32b")
    assert published_shape("../pyproject") is None
