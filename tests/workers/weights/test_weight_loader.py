from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.stored_tensor import StoredTensor
from shardline_workers.weights.matrix_part import MatrixPart, SplitAxis
from shardline_workers.weights.stored_numbers import Weights, read_numbers
from shardline_workers.weights.tensor_names import HUGGING_FACE_LLAMA
from shardline_workers.weights.weight_loader import WeightLoader

EXPECTED = {"embedding": (4, 2), "layers.0.query": (2, 2)}
STORED = {"model.embed_tokens.weight": (4, 2), "model.layers.0.self_attn.q_proj.weight": (2, 2)}


class StoredOnes:
    """A checkpoint of ones."""

    path = Path("some/model")

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def stored(self, name: str) -> StoredTensor:
        return StoredTensor("F32", self.shapes[name], memoryview(np.ones(self.shapes[name], "<f4").tobytes()))

    def numbers(self, name: str, stored: StoredTensor) -> Weights:
        return read_numbers(stored)


def loader(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> WeightLoader:
    return WeightLoader(StoredOnes(shapes), HUGGING_FACE_LLAMA, dtype=dtype, device=torch.device("cpu"))


def test_a_checkpoint_with_all_that_is_expected_passes() -> None:
    loader(STORED).check(EXPECTED)


def test_a_missing_tensor_is_told_by_the_checkpoints_own_name() -> None:
    del (shapes := dict(STORED))["model.layers.0.self_attn.q_proj.weight"]

    with pytest.raises(ModelFileError, match=r"1 tensors are missing: found \['model.layers.0.self_attn.q_proj"):
        loader(shapes).check(EXPECTED)


def test_a_misshapen_tensor_is_told_with_both_shapes() -> None:
    shapes = STORED | {"model.embed_tokens.weight": (5, 2)}

    with pytest.raises(ModelFileError, match=r"embed_tokens.weight: found \(5, 2\), expected \(4, 2\)"):
        loader(shapes).check(EXPECTED)


def test_a_tensor_that_would_not_be_used_is_refused() -> None:
    shapes = STORED | {"model.layers.0.self_attn.q_proj.bias": (2,)}

    with pytest.raises(ModelFileError, match=r"1 tensors would not be used: found \['.*q_proj.bias'\]"):
        loader(shapes).check(EXPECTED)


def test_tensors_that_need_not_be_read_may_be_there() -> None:
    shapes = STORED | {"lm_head.weight": (4, 2), "model.layers.0.self_attn.rotary_emb.inv_freq": (1,)}

    loader(shapes).check(EXPECTED, unread=frozenset({"lm_head"}))
    with pytest.raises(ModelFileError, match=r"found \['lm_head.weight'\]"):
        loader(shapes).check(EXPECTED)


def test_tensors_come_in_the_loaders_dtype_unless_another_is_asked_for() -> None:
    loaded = loader(STORED, torch.bfloat16)

    assert loaded.tensor("embedding").dtype is torch.bfloat16
    assert loaded.tensor("embedding", dtype=torch.float32).dtype is torch.float32
    assert (loaded.has("embedding"), loaded.has("lm_head")) == (True, False)


def test_a_matrix_can_be_had_as_it_is_stored_and_as_numbers() -> None:
    matrix = loader(STORED, torch.float64).matrix("layers.0.query")

    assert (matrix.stored.kind, matrix.stored.shape) == ("F32", (2, 2))
    assert torch.equal(matrix.dequantised(), torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("axis", "span", "shape"),
    [(SplitAxis.OUTPUTS, range(2, 4), (2, 2)), (SplitAxis.INPUTS, range(1, 2), (4, 1))],
)
def test_a_rank_gets_its_part_of_a_matrix_and_all_of_what_is_not_dealt_out(
    axis: SplitAxis, span: range, shape: tuple[int, int]
) -> None:
    whole = loader(STORED, torch.float32)

    part = whole.matrix("embedding", MatrixPart(axis, span))

    assert part.stored.shape == shape
    assert part.dequantised().shape == shape
    assert whole.matrix("embedding").stored.shape == (4, 2)
