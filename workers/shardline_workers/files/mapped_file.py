"""A whole file as read-only memory, shared by every process that maps it."""

import mmap
from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError


def map_file(path: Path) -> memoryview:
    """Maps `path` and returns its bytes. The mapping goes when the last view of it goes.

    Raises:
        ModelFileError: the file is missing, unreadable or empty.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: there is nothing to map, or the path can be none
        raise ModelFileError.about(
            path,
            "the file cannot be read",
            value=getattr(error, "strerror", None) or str(error),
            bound="a readable regular file that is not empty",
            remedy="Check the path and its permissions, or fetch the file again.",
        ) from error
