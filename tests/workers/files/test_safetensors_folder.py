import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import SafetensorsFolder, weight_files


def write_shards(folder: Path) -> None:
    save_file({"a": np.zeros(2, np.float32)}, folder / "model-1.safetensors")
    save_file({"b": np.ones(3, np.float32)}, folder / "model-2.safetensors")


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_read_as_one_through_their_index(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})

    folder = SafetensorsFolder.open(tmp_path)

    assert folder.tensor_to_file == {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    assert folder.tensors["b"].shape == (3,)
    assert folder.tensor_bytes("b") == np.ones(3, np.float32).tobytes()
    assert [path.name for path in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    folder.close()


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")

    folder = SafetensorsFolder.open(tmp_path)

    assert folder.tensor_to_file == {"a": "model.safetensors"}
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize("weight_map", [["a"], {"a": "../model-1.safetensors"}, {"a": 3}, {"a": "/etc/passwd"}])
def test_an_index_that_leads_elsewhere_is_refused(weight_map: object, tmp_path: Path) -> None:
    write_index(tmp_path, weight_map)

    with pytest.raises(ModelFileError, match=r"index\.json: weight_map: found .*, expected .* in this folder"):
        SafetensorsFolder.open(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_an_index_that_is_broken_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)

    with pytest.raises(ModelFileError, match="expected a JSON object"):
        weight_files(tmp_path)


def test_an_index_that_names_what_no_shard_has_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_index(tmp_path, {"a": "model-2.safetensors"})

    with pytest.raises(ModelFileError, match="tensor 'a' is missing"):
        SafetensorsFolder.open(tmp_path)


@pytest.mark.parametrize("name", ["model-1.safetensors", "model\0.safetensors", "\ud800.safetensors"])
def test_a_missing_shard_is_refused(name: str, tmp_path: Path) -> None:
    write_index(tmp_path, {"a": name})

    with pytest.raises(ModelFileError, match=r"\.safetensors: the file cannot be read"):
        SafetensorsFolder.open(tmp_path)
