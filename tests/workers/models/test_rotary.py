import dataclasses
import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from shardline_workers.kernels.operands import RotaryPairing
from shardline_workers.models.rotary import RotarySpec, rotary_table
from shardline_workers.models.rotary_scaling import (
    LinearScaling,
    Llama3Scaling,
    RotaryScaling,
    YarnScaling,
    yarn_magnitude,
)

CPU = torch.device("cpu")
LLAMA3 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_len=8192)
YARN = YarnScaling(factor=4.0, original_max_len=4096, magnitude=1.1)


def spec(scaling: RotaryScaling | None = None) -> RotarySpec:
    return RotarySpec(theta=500000.0, rotary_dim=128, pairing=RotaryPairing.HALVES, scaling=scaling)


@pytest.mark.parametrize(
    ("scaling", "parameters"),
    [
        (None, {"rope_type": "default"}),
        (LinearScaling(factor=3.0), {"rope_type": "linear", "factor": 3.0}),
        (
            LLAMA3,
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        (
            YarnScaling(factor=3.0, original_max_len=4096, magnitude=yarn_magnitude(3.0)),
            {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 4096},
        ),
        (
            YarnScaling(
                factor=2.5,
                original_max_len=2000,
                magnitude=1.25,
                fast_turns=20.0,
                slow_turns=2.0,
                whole_bounds=False,
            ),
            {
                "rope_type": "yarn",
                "factor": 2.5,
                "original_max_position_embeddings": 2000,
                "attention_factor": 1.25,
                "beta_fast": 20.0,
                "beta_slow": 2.0,
                "truncate": False,
            },
        ),
    ],
    ids=["none", "linear", "llama3", "yarn", "yarn with everything"],
)
def test_the_table_is_that_of_transformers(scaling: RotaryScaling | None, parameters: dict[str, Any]) -> None:
    config = LlamaConfig(hidden_size=128, num_attention_heads=1, rope_parameters=parameters | {"rope_theta": 500000.0})

    table = rotary_table(spec(scaling), 20_000, dtype=torch.float32, device=CPU)

    cosines, sines = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(20_000)[None])
    torch.testing.assert_close(table.cosines, cosines[0, :, :64], rtol=0, atol=0)
    torch.testing.assert_close(table.sines, sines[0, :, :64], rtol=0, atol=0)


def test_factors_divide_the_frequencies() -> None:
    small = RotarySpec(theta=100.0, rotary_dim=4, pairing=RotaryPairing.NEIGHBOURS)

    table = rotary_table(small, 4, dtype=torch.float64, device=CPU, factors=torch.tensor([1.0, 2.0]))

    assert table.pairing is RotaryPairing.NEIGHBOURS
    assert table.cosines[3].tolist() == pytest.approx([math.cos(3.0), math.cos(3.0 / 10 / 2)], abs=1e-7)


@pytest.mark.parametrize(
    ("changed", "changes", "message"),
    [
        (spec(), {"theta": 0.0}, "theta of the rotary embedding is 0.0"),
        (spec(), {"theta": math.inf}, "theta of the rotary embedding is inf"),
        (LinearScaling(factor=3.0), {"factor": math.nan}, "factor of the rotary embedding is nan"),
        (LLAMA3, {"factor": 0.0}, "factor of the rotary embedding is 0.0"),
        (LLAMA3, {"low_freq_factor": 0.0}, "low_freq_factor of the rotary embedding is 0.0"),
        (LLAMA3, {"high_freq_factor": 1.0}, "it must be more than low_freq_factor, which is 1.0"),
        (LLAMA3, {"original_max_len": 0}, "original_max_len of the rotary embedding is 0"),
        (YARN, {"magnitude": math.nan}, "magnitude of the rotary embedding is nan"),
        (YARN, {"slow_turns": 0.0}, "slow_turns of the rotary embedding is 0.0"),
        (YARN, {"fast_turns": 1.0}, "beta_fast of the rotary embedding is 1.0; it must be more than beta_slow"),
        (spec(YARN), {"theta": 1.0}, "theta of the rotary embedding is 1.0; YaRN needs one above 1"),
    ],
)
def test_numbers_that_turn_nothing_are_refused(changed: Any, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(changed, **changes)


def test_a_length_of_any_size_is_computed_with() -> None:
    endless = dataclasses.replace(LLAMA3, original_max_len=10**30)

    table = rotary_table(spec(endless), 4, dtype=torch.float32, device=CPU)

    assert torch.equal(table.cosines, rotary_table(spec(), 4, dtype=torch.float32, device=CPU).cosines)
