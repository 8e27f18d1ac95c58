"""Keeps the output of a process that runs for months from filling the disk."""

import os
import shutil
from pathlib import Path

MOST_LOG_BYTES = 8 << 20  # of one file; with what was moved away, twice as much


def cap_log(log: Path, *, most_bytes: int = MOST_LOG_BYTES) -> None:
    """Moves what a log holds to `LOG.1`, in place of what lay there, once it is larger than `most_bytes`.

    The writers must have opened it to append: they go on at its new end. A line that is written at this very moment may
    be lost.
    """
    try:
        if log.stat().st_size <= most_bytes:
            return
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except FileNotFoundError:  # deleted with its folder
        return
