import dataclasses

import pytest

from shardline_workers.kernels.operands import AttentionShape, RotaryPairing
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.rotary import RotarySpec

SHAPE = DecoderShape(
    family="llama",
    vocab_size=10,
    hidden_size=8,
    intermediate_size=12,
    num_layers=2,
    attention=AttentionShape(num_heads=4, num_kv_heads=2, head_dim=6),
    norm_epsilon=1e-5,
    rotary=RotarySpec(theta=1e4, rotary_dim=6, pairing=RotaryPairing.HALVES),
    is_tied=True,
    max_len=64,
)


def test_tensor_shapes_follow_from_the_sizes() -> None:
    shapes = SHAPE.tensor_shapes()

    assert len(shapes) == 2 + 2 * 9
    assert shapes["layers.1.query"] == (24, 8)
    assert shapes["layers.1.key"] == (12, 8)
    assert shapes["layers.0.attention_output"] == (8, 24)
    assert shapes["layers.0.down"] == (8, 12)


def test_only_an_untied_head_has_a_tensor_of_its_own() -> None:
    assert "lm_head" not in SHAPE.tensor_shapes()
    assert dataclasses.replace(SHAPE, is_tied=False).tensor_shapes()["lm_head"] == (10, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_layers": 1 << 62}, "it must be at most 10000"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon is nan"),
        ({"attention": AttentionShape(num_heads=4, num_kv_heads=3, head_dim=6)}, "cannot share 3"),
        ({"rotary": dataclasses.replace(SHAPE.rotary, rotary_dim=5)}, "rotary_dim is 5"),
        ({"rotary": dataclasses.replace(SHAPE.rotary, rotary_dim=8)}, "at most the head size 6"),
    ],
)
def test_sizes_that_make_no_decoder_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SHAPE, **changes)  # type: ignore[arg-type]
