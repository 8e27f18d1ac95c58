"""The model that is to be planned for: a published shape by its name, or files on this machine by their headers."""

from dataclasses import dataclass
from pathlib import Path

from shardline_cluster.cli.found_model import find_model
from shardline_cluster.errors import ConfigurationError
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.sizing.config_shape import read_model_shape
from shardline_workers.sizing.model_header import ModelHeader, read_model_header
from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.published_shapes import published_names, published_shape
from shardline_workers.sizing.stored_bytes import QUANTISATIONS, FileBytes, Quantisation, StoredBytes, file_bytes

_PUBLISHED_FORMAT = "bf16"


@dataclass(frozen=True, slots=True)
class SizedModel:
    """Its shape, and how its weights are stored."""

    name: str
    shape: ModelShape
    stored: StoredBytes


def size_model(asked: str, quantisation: Quantisation | None, cache_folder: Path) -> SizedModel:
    """Sizes it. A published name goes before a folder of that name, which `./NAME` means.

    Raises:
        ConfigurationError: there is no such model, or its header does not say how large it is.
    """
    try:
        shape = published_shape(asked)
        if shape is not None:
            return SizedModel(asked.lower(), shape, quantisation or QUANTISATIONS[_PUBLISHED_FORMAT])
        files, _ = find_model(asked, cache_folder)
        header = read_model_header(files)
        shape = read_model_shape(header.facts)
    except ModelFileError as error:
        raise ConfigurationError(f"{error} Published shapes: {', '.join(published_names())}") from error
    return SizedModel(asked, shape, quantisation or _as_stored(shape, header))


def _as_stored(shape: ModelShape, header: ModelHeader) -> FileBytes:
    kinds: dict[str, int] = {}
    for tensor in header.tensors:
        kinds[tensor.kind] = kinds.get(tensor.kind, 0) + tensor.num_bytes
    main = max(kinds, key=lambda kind: kinds[kind])
    return file_bytes(f"its own {main}", shape, header.tensors, arithmetic="fp8" if main.startswith("F8") else "fp16")
