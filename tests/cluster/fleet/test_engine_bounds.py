"""What an engine's options may be is said in one place, field by field."""

import dataclasses

import pytest

from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.engine_bounds import CHOICES, LONGEST_TEXT_BYTES, NUMBERS, TEXTS, wrong_options


def test_the_defaults_are_within_all_bounds() -> None:
    assert list(wrong_options(EngineOptions())) == []


def test_every_option_has_its_bounds() -> None:
    bounded = {*CHOICES, *NUMBERS, *TEXTS, "device", "enable_prefix_caching"}

    assert {field.name for field in dataclasses.fields(EngineOptions)} == bounded


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("engine", "vllm", "is 'vllm', but must be one of shardline, simulated"),
        ("dtype", "float8", "is 'float8', but must be one of auto, float32, float64, bfloat16, float16"),
        ("max_num_seqs", 0, "is 0, but must be 1 to 2147483648"),
        ("max_model_len", -1, "is -1, but must be 1 to 2147483648"),
        ("simulated_step_s", float("nan"), "is nan, but must be 0 to 3600"),
        ("simulated_step_s", 3601.0, "is 3601, but must be 0 to 3600"),
        ("device", "tpu", "is 'tpu', but must be cpu, cuda, or cuda:N for one GPU of several"),
        ("chat_template", "x" * (LONGEST_TEXT_BYTES + 1), "has 1048577 bytes, but may have at most 1048576"),
    ],
)
def test_a_wrong_value_is_told_with_its_bound(field: str, value: object, what: str) -> None:
    options = dataclasses.replace(EngineOptions(), **{field: value})  # type: ignore[arg-type]

    (wrong,) = wrong_options(options)

    assert (wrong.field, wrong.what) == (field, what)
