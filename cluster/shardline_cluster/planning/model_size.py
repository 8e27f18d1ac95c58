"""How large a model is by the headers of its files: its shape, and how its weights are stored."""

from dataclasses import dataclass

from shardline_workers.files.model_source import ModelFiles
from shardline_workers.sizing.config_shape import read_model_shape
from shardline_workers.sizing.model_header import ModelHeader, read_model_header
from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.stored_bytes import FileBytes, file_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Both together."""

    shape: ModelShape
    stored: FileBytes


def size_files(files: ModelFiles) -> ModelSize:
    """Reads headers, tenths of a second.

    Raises:
        ModelFileError: a file is missing or broken, or does not say how large the model is.
    """
    header = read_model_header(files)
    shape = read_model_shape(header.facts)
    return ModelSize(shape=shape, stored=_as_stored(shape, header))


def _as_stored(shape: ModelShape, header: ModelHeader) -> FileBytes:
    kinds: dict[str, int] = {}
    for tensor in header.tensors:
        kinds[tensor.kind] = kinds.get(tensor.kind, 0) + tensor.num_bytes
    main = max(kinds, key=lambda kind: kinds[kind])
    return file_bytes(f"its own {main}", shape, header.tensors, arithmetic="fp8" if main.startswith("F8") else "fp16")
