"""Bit for bit what the `gguf` package makes of the same bytes."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from shardline_workers.weights.gguf_types import UnsupportedGgmlTypeError, bfloat16_to_float32, dequantise

SHAPE = (6, 96)
QUANTISED = [
    GGMLQuantizationType.F32,
    GGMLQuantizationType.F16,
    GGMLQuantizationType.BF16,
    GGMLQuantizationType.Q8_0,
    GGMLQuantizationType.Q4_0,
    GGMLQuantizationType.Q4_1,
]


def weights() -> np.ndarray:
    return np.random.default_rng(4).normal(scale=3, size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_weights_are_bit_equal_to_the_gguf_package(kind: GGMLQuantizationType) -> None:
    packed = quantize(weights(), kind)

    ours = dequantise(memoryview(packed.tobytes()), kind.value, SHAPE)

    assert ours.dtype == np.float32
    assert ours.flags.writeable
    assert ours.tobytes() == dequantize(packed, kind).reshape(SHAPE).tobytes()


@pytest.mark.parametrize("kind", QUANTISED[3:], ids=lambda kind: kind.name)
def test_any_bytes_are_bit_equal_to_the_gguf_package(kind: GGMLQuantizationType) -> None:
    block_bytes = len(quantize(np.zeros((1, 32), np.float32), kind).tobytes())
    packed = np.random.default_rng(5).integers(0, 256, size=(64, block_bytes), dtype=np.uint8)
    packed[:, 1] &= 0x3F  # scales that are numbers
    packed[:, 3] &= 0x3F

    ours = dequantise(memoryview(packed.tobytes()), kind.value, (64, 32))

    assert ours.tobytes() == dequantize(packed, kind).tobytes()


def test_a_type_that_cannot_be_read_is_refused_with_those_that_can() -> None:
    with pytest.raises(UnsupportedGgmlTypeError, match=r"Q4_K cannot be read yet; .* F32, F16, BF16, Q8_0, Q4_0, Q4_1"):
        dequantise(memoryview(bytes(144)), GGMLQuantizationType.Q4_K.value, (256,))


def test_bfloat16_is_the_upper_half_of_a_float32() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80], dtype=np.uint16)

    assert bfloat16_to_float32(bits).tolist() == [1.0, -2.0, np.inf]
