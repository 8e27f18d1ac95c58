"""The model that is to be planned for: a published shape by its name, or files on this machine by their headers."""

from dataclasses import dataclass
from pathlib import Path

from shardline_cluster.cli.found_model import find_model
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.planning.model_size import size_files
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.published_shapes import published_names, published_shape
from shardline_workers.sizing.stored_bytes import QUANTISATIONS, Quantisation, StoredBytes

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
        size = size_files(files)
    except ModelFileError as error:
        raise ConfigurationError(f"{error} Published shapes: {', '.join(published_names())}") from error
    return SizedModel(asked, size.shape, quantisation or size.stored)
