import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_file import SafetensorsFile


def file_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def opened(tmp_path: Path, content: bytes) -> SafetensorsFile:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return SafetensorsFile.open(path)


def test_files_of_the_safetensors_package_read_the_same(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with SafetensorsFile.open(tmp_path / "model.safetensors") as file:
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in file.tensors.items()} == {
            "a": ("F32", (2, 3)),
            "b": ("I64", (4,)),
        }
        assert all(file.tensor_bytes(name) == array.tobytes() for name, array in tensors.items())


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


DEEP = b'{"a":' * 100_000
TWICE = b'{"w": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "w": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
OVERLAPPING = entry() | {"v": {"dtype": "U8", "shape": [4], "data_offsets": [6, 10]}}
LYING = {
    "length of the header": file_bytes({}, length=1 << 60),
    "no JSON:": file_bytes(b"{nonsense"),
    "the header is no JSON: ": file_bytes(DEEP),
    "no JSON object": file_bytes([1]),
    "a name stands twice in the header: found 'w'": file_bytes(TWICE, b"\0" * 8),
    "entry of w": file_bytes(entry(data_offsets=[0]), b"\0" * 8),
    "dtype of w": file_bytes(entry(dtype="F7"), b"\0" * 8),
    "shape of w": file_bytes(entry(shape=[-2]), b"\0" * 8),
    "data_offsets of w": file_bytes(entry(data_offsets=[0, 1 << 40]), b"\0" * 8),
    "data of w": file_bytes(entry(shape=[3]), b"\0" * 8),
    "overlap": file_bytes(OVERLAPPING, b"\0" * 10),
}


@pytest.mark.parametrize("what", LYING)
def test_a_lying_file_is_refused_by_what_is_wrong(what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=what):
        opened(tmp_path, LYING[what])


@pytest.mark.parametrize("num_bytes", [1, 7, 8, 20, 70])
def test_a_file_cut_anywhere_is_refused(num_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        opened(tmp_path, file_bytes(entry(), b"\0" * 8)[:num_bytes])
