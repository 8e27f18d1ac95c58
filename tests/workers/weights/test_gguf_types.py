"""Bit for bit what the `gguf` package makes of the same bytes."""

import tracemalloc

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.weights.gguf_types import UnsupportedGgmlTypeError, bfloat16_to_float32, dequantise
from tests.workers.ggml_blocks import any_blocks

SHAPE = (6, 96)
QUANTISED = [
    GGMLQuantizationType.F32,
    GGMLQuantizationType.F16,
    GGMLQuantizationType.BF16,
    GGMLQuantizationType.Q8_0,
    GGMLQuantizationType.Q4_0,
    GGMLQuantizationType.Q4_1,
    GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_1,
]
K_QUANTS = [
    GGMLQuantizationType.Q2_K,
    GGMLQuantizationType.Q3_K,
    GGMLQuantizationType.Q4_K,
    GGMLQuantizationType.Q5_K,
    GGMLQuantizationType.Q6_K,
]
READABLE = QUANTISED[3:] + K_QUANTS


def weights() -> np.ndarray:
    return np.random.default_rng(4).normal(scale=3, size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_weights_are_bit_equal_to_the_gguf_package(kind: GGMLQuantizationType) -> None:
    packed = quantize(weights(), kind)

    ours = dequantise(memoryview(packed.tobytes()), kind.value, SHAPE)

    assert ours.dtype == np.float32
    assert ours.flags.writeable
    assert ours.tobytes() == dequantize(packed, kind).reshape(SHAPE).tobytes()


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_any_bytes_are_bit_equal_to_the_gguf_package(kind: GGMLQuantizationType) -> None:
    packed = any_blocks(kind, 600)

    ours = dequantise(memoryview(packed.tobytes()), kind.value, (600, GGML_TYPES[kind.value].block_weights))

    assert np.isfinite(ours).all()
    assert len(np.unique(ours)) > 1000
    assert ours.tobytes() == dequantize(packed, kind).tobytes()


def test_a_large_tensor_is_read_in_chunks_of_bounded_memory() -> None:
    num_weights = 1 << 23
    packed = memoryview(bytes(num_weights // 256 * 210))
    tracemalloc.start()

    weights = dequantise(packed, GGMLQuantizationType.Q6_K.value, (1024, num_weights // 1024))

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most - weights.nbytes < 8 << 20


def test_the_last_chunk_may_be_a_part_of_one() -> None:
    kind = GGMLQuantizationType.Q4_K
    packed = any_blocks(kind, 1500)  # of 256 weights: chunks hold 1024

    ours = dequantise(memoryview(packed.tobytes()), kind.value, (1500, 256))

    assert ours.tobytes() == dequantize(packed, kind).tobytes()


@pytest.mark.parametrize("name", ["IQ4_NL", "IQ2_XXS", "TQ1_0", "MXFP4", "NVFP4", "Q1_0", "I8"])
def test_a_type_that_cannot_be_read_is_refused_with_those_that_can(name: str) -> None:
    number, kind = next((number, kind) for number, kind in GGML_TYPES.items() if kind.name == name)

    with pytest.raises(UnsupportedGgmlTypeError, match=rf"{name} cannot be read yet; .* Q5_1, Q2_K, .* Q6_K"):
        dequantise(memoryview(bytes(kind.block_bytes)), number, (kind.block_weights,))


def test_bfloat16_is_the_upper_half_of_a_float32() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80], dtype=np.uint16)

    assert bfloat16_to_float32(bits).tolist() == [1.0, -2.0, np.inf]
