import math

import pytest
import torch

from shardline_workers.kernels.operands import AttentionShape
from shardline_workers.kernels.reference_kv_cache import allocate, block_bytes, gather, store

CPU = torch.device("cpu")
SHAPE = AttentionShape(num_heads=2, num_kv_heads=2, head_dim=48)


def test_blocks_are_gathered_in_the_order_of_the_table() -> None:
    cache = allocate(SHAPE, num_blocks=4, block_size=3, dtype=torch.float64, device=CPU)
    places = torch.arange(12)
    keys = places.double().view(12, 1, 1).expand(12, 2, 48)
    store(cache, places, keys, -keys)

    gathered_keys, gathered_values = gather(cache, torch.tensor([3, 0]), 5, dtype=torch.float64)

    assert gathered_keys[1, :, 7].tolist() == [9, 10, 11, 0, 1]
    assert torch.equal(gathered_values, -gathered_keys)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 300.0])
def test_int8_is_half_a_step_away_at_most(spread: float) -> None:
    cache = allocate(SHAPE, num_blocks=1, block_size=64, dtype=torch.int8, device=CPU)
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 64, 2, 48, generator=generator, dtype=torch.float64) * spread
    store(cache, torch.arange(64), keys, values)

    read_keys, read_values = gather(cache, torch.tensor([0]), 64, dtype=torch.float64)

    first, value_steps = keys[..., :32].abs().amax(-1) / 127, values.abs().amax(-1) / 127
    assert ((read_keys.transpose(0, 1)[..., :32] - keys[..., :32]).abs() <= 0.56 * first[..., None]).all()
    assert ((read_values.transpose(0, 1) - values).abs() <= 0.501 * value_steps[..., None]).all()


def test_zeros_stay_zeros_and_what_is_no_number_stays_none() -> None:
    cache = allocate(SHAPE, num_blocks=1, block_size=4, dtype=torch.int8, device=CPU)
    keys = torch.zeros(4, 2, 48)
    keys[1, 0, 40], keys[2, 0, 40] = math.nan, math.inf
    store(cache, torch.arange(4), keys, keys)

    read_keys, read_values = gather(cache, torch.tensor([0]), 4, dtype=torch.float32)

    assert (read_keys[0, [0, 3]] == 0).all() and (read_values[0, [0, 3]] == 0).all()
    assert (read_keys[0, 1:3, :32] == 0).all()
    assert read_keys[0, 1:3, 32:].isnan().all() and read_values[0, 1:3].isnan().all()


def test_a_block_of_int8_takes_numbers_and_scales() -> None:
    assert block_bytes(SHAPE, block_size=64, dtype=torch.float32) == 2 * 64 * 2 * 48 * 4
    assert block_bytes(SHAPE, block_size=64, dtype=torch.int8) == 2 * 64 * (2 * 48 + 2 * 2 + 4)
