"""A folder of safetensors files, whole or in shards: which tensor lies in which file."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_file import SafetensorsFile, SafetensorsTensor

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_SUFFIX = ".safetensors"


class SafetensorsFolder:
    """All tensors of a folder under one roof. Thread-safe, as nothing changes but `close`."""

    def __init__(self, files: Mapping[str, SafetensorsFile], tensor_to_file: Mapping[str, str]) -> None:
        self._files = files
        self.tensor_to_file = MappingProxyType(dict(tensor_to_file))
        self.tensors: Mapping[str, SafetensorsTensor] = MappingProxyType(
            {name: files[file].tensors[name] for name, file in tensor_to_file.items()}
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens every shard that the folder's index names, or its one file.

        Raises:
            ModelFileError: no weights, a shard is missing or broken, or the index and the shards disagree.
        """
        weight_map = _weight_map(folder)
        files = {name: SafetensorsFile.open(folder / name) for name in _file_names(weight_map)}
        if weight_map is None:
            weight_map = dict.fromkeys(files[SINGLE_NAME].tensors, SINGLE_NAME)
        _refuse_missing(folder, files, weight_map)
        return cls(files, weight_map)

    def tensor_bytes(self, name: str) -> memoryview:
        """As `SafetensorsFile.tensor_bytes`, from whichever shard."""
        return self._files[self.tensor_to_file[name]].tensor_bytes(name)

    def close(self) -> None:
        """Closes every file."""
        for file in self._files.values():
            file.close()


def weight_files(folder: Path) -> list[Path]:
    """The files that `SafetensorsFolder.open` would read, sorted by name, without opening them.

    Raises:
        ModelFileError: the index is broken.
    """
    return [folder / name for name in _file_names(_weight_map(folder))]


def _file_names(weight_map: Mapping[str, str] | None) -> list[str]:
    return [SINGLE_NAME] if weight_map is None else sorted(set(weight_map.values()))


def _weight_map(folder: Path) -> dict[str, str] | None:
    """Tensor name to file name from the index; None where the folder has none."""
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    index = ModelFacts.read_json(path)
    match index.values:
        case {"weight_map": dict(weight_map)} if all(_is_file_name(name) for name in weight_map.values()):
            return weight_map
    bound = f"{{tensor: file}} with files ending in {_SUFFIX} in this folder"
    raise index.refusal("weight_map", value=index.values.get("weight_map"), bound=bound)


def _is_file_name(name: object) -> bool:
    """A plain name inside the folder: an index must not lead out of it."""
    return isinstance(name, str) and name.endswith(_SUFFIX) and Path(name).name == name


def _refuse_missing(folder: Path, files: Mapping[str, SafetensorsFile], weight_map: Mapping[str, str]) -> None:
    for tensor, file in weight_map.items():
        if tensor not in files[file].tensors:
            raise ModelFileError.about(
                folder / file,
                f"tensor {tensor!r} is missing",
                value=f"{len(files[file].tensors)} other tensors",
                bound=f"it, as {INDEX_NAME} says",
                remedy="Index and shards come from different downloads: fetch them together.",
            )
