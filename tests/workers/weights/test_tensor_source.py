from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.weights.stored_numbers import Weights
from shardline_workers.weights.tensor_source import GgufTensorSource, SafetensorsTensorSource, TensorSource


def safetensors_source(folder: Path, tensor: torch.Tensor) -> SafetensorsTensorSource:
    save_file({"w": tensor}, folder / "model.safetensors")
    return SafetensorsTensorSource(folder, SafetensorsFolder.open(folder))


def numbers(source: TensorSource) -> Weights:
    return source.numbers("w", source.stored("w"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_safetensors_are_read_exactly_in_every_float_type(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 5, dtype=torch.float64).to(dtype)

    source = safetensors_source(tmp_path, tensor)

    assert source.shapes == {"w": (3, 5)}
    assert torch.equal(torch.from_numpy(numbers(source)).to(torch.float64), tensor.to(torch.float64))


def test_a_safetensors_type_that_is_no_float_is_refused_by_name(tmp_path: Path) -> None:
    source = safetensors_source(tmp_path, torch.ones(2, dtype=torch.int8))

    with pytest.raises(ModelFileError, match="dtype of w: found 'I8', expected one of F64, F32, F16, BF16"):
        numbers(source)


def gguf_source(path: Path, array: np.ndarray, kind: GGMLQuantizationType | None = None) -> GgufTensorSource:
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("w", array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufTensorSource(GgufFile.open(path))


def test_gguf_tensors_are_dequantised_in_their_row_major_shape(tmp_path: Path) -> None:
    packed = quantize(np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32), GGMLQuantizationType.Q8_0)

    source = gguf_source(tmp_path / "m.gguf", packed, GGMLQuantizationType.Q8_0)

    assert source.shapes == {"w": (3, 64)}
    assert np.array_equal(numbers(source), dequantize(packed, GGMLQuantizationType.Q8_0))


def test_a_gguf_type_that_cannot_be_read_is_refused_with_file_and_tensor(tmp_path: Path) -> None:
    source = gguf_source(tmp_path / "m.gguf", np.zeros((1, 136), np.uint8), GGMLQuantizationType.IQ4_XS)

    with pytest.raises(ModelFileError, match=r"m\.gguf: type of tensor w: found 'IQ4_XS', expected one of F64, F32"):
        numbers(source)
