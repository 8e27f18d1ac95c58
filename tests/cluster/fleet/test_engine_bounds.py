"""What an engine's options may be is said in one place, field by field."""

import dataclasses
from typing import Any

import pytest

from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.engine_bounds import (
    CHOICES,
    LONGEST_TEXT_BYTES,
    NUMBERS,
    TEXTS,
    cache_tokens,
    wrong_options,
)


def test_the_defaults_are_within_all_bounds() -> None:
    assert list(wrong_options(EngineOptions())) == []


def test_every_option_has_its_bounds() -> None:
    bounded = {*CHOICES, *NUMBERS, *TEXTS, "device", "rank_resource"}
    switches = {"enable_prefix_caching", "enable_expert_parallel", "replan"}

    assert {field.name for field in dataclasses.fields(EngineOptions)} == bounded | switches


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


@pytest.mark.parametrize(
    ("options", "field", "what"),
    [
        ({"kv_cache_tokens": 10}, "kv_cache_tokens", "is 10, but must be at least a block of 32 tokens: raise it"),
        ({"kv_cache_tokens": 40, "block_size": 64}, "kv_cache_tokens", "must be at least a block of 64 tokens"),
        ({"kv_cache_tokens": 64, "max_model_len": 65}, "max_model_len", "is 65, but kv_cache_tokens is 64: lower"),
        ({"max_num_batched_tokens": 4}, "max_num_batched_tokens", "is 4, less than max_num_seqs = 32: a step must"),
        ({"simulated_tokens": "replay"}, "simulated_tokens", "is 'replay', but only the simulated engine obeys it"),
        ({"simulated_step_s": 3.0}, "simulated_step_s", "is '3.0', but only the simulated engine obeys it"),
        ({"engine": "simulated", "simulated_tokens": "replay"}, "simulated_tokens", "set simulated_replay_text"),
        ({"engine": "simulated", "max_num_batched_tokens": 1}, "max_num_batched_tokens", "is 1, less than"),
        ({"expert_parallel_size": 2}, "expert_parallel_size", "data_parallel_size 1 it must be 1"),
        ({"data_parallel_size": 2, "expert_parallel_size": 3}, "expert_parallel_size", "it must be one of 1, 2"),
    ],
)
def test_a_contradiction_is_told_with_its_remedy(options: dict[str, Any], field: str, what: str) -> None:
    (wrong,) = wrong_options(EngineOptions(**options))

    assert wrong.field == field
    assert what in wrong.what


@pytest.mark.parametrize(
    "options",
    [
        {"kv_cache_tokens": 32},
        {"kv_cache_tokens": 16, "block_size": 16, "max_model_len": 16},
        {"max_num_batched_tokens": 32},
        {"engine": "simulated", "kv_cache_tokens": 10, "simulated_tokens": "replay", "simulated_replay_text": "x"},
    ],
)
def test_options_that_can_be_met_together_pass(options: dict[str, Any]) -> None:
    assert list(wrong_options(EngineOptions(**options))) == []


@pytest.mark.parametrize(("tokens", "block_size", "holds"), [(None, None, None), (1000, None, 992), (1000, 64, 960)])
def test_a_cache_holds_whole_blocks(tokens: int | None, block_size: int | None, holds: int | None) -> None:
    assert cache_tokens(EngineOptions(kv_cache_tokens=tokens, block_size=block_size)) == holds
