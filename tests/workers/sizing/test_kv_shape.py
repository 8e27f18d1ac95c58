"""Bytes of keys and values: by heads, by a latent vector, within windows."""

import pytest

from shardline_workers.sizing.kv_shape import KvShape

GROUPED = KvShape(num_heads=2, key_dim=64, value_dim=64, windows=(None, 100, None))


def test_every_layer_keeps_every_token() -> None:
    assert GROUPED.held_bytes(1000) == 1000 * 3 * 2 * (64 + 64) * 2


@pytest.mark.parametrize(("context", "tokens"), [(50, 150), (100, 300), (1000, 2100)])
def test_a_layer_with_a_window_reads_that_much_at_most(context: int, tokens: int) -> None:
    assert GROUPED.seen_bytes(context) == tokens * 2 * 128 * 2


def test_int8_has_a_scale_for_each_32_numbers_of_a_key_and_one_for_a_value() -> None:
    assert GROUPED.head_bytes("int8") == 64 + 2 * 2 + 64 + 4


def test_a_latent_vector_is_key_and_value_in_one() -> None:
    latent = KvShape(num_heads=1, key_dim=576, value_dim=0, windows=(None,))

    assert (latent.held_bytes(1), latent.head_bytes("int8")) == (1152, 576 + 18 * 2)
