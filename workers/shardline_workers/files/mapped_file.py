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
    except ValueError:
        raise ModelFileError.about(
            path, "the file is empty", value=0, bound="at least a header", remedy="Fetch it again."
        ) from None
    except OSError as error:
        raise ModelFileError.about(
            path,
            "the file cannot be read",
            value=error.strerror or str(error),
            bound="a readable regular file",
            remedy="Check the path and its permissions.",
        ) from error
