"""Tensors of one file lie beside each other, never on each other."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError


def refuse_overlaps(path: Path, spans: Iterable[tuple[int, int, str]]) -> None:
    """Checks spans of (offset, number of bytes, name). Empty ones overlap nothing.

    Raises:
        ModelFileError: two of them share a byte.
    """
    for before, after in pairwise(sorted(span for span in spans if span[1])):
        if before[0] + before[1] > after[0]:
            raise ModelFileError.about(
                path,
                f"tensors {before[2]!r} and {after[2]!r} overlap",
                value=after[0],
                bound=f"an offset of at least {before[0] + before[1]}",
                remedy="The file is damaged: fetch it again.",
            )
