"""The folder in which one `serve` keeps its state: short, private, and cleaned after one that was killed.

TEMP/shardline-UID/s-TOKEN/owner.lock   locked for as long as the owner lives: the kernel unlocks it
                           replicas/    of the local launcher
                           r/           Ray's files and sockets
                           logs/        what the processes print
"""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.serve.ray_plan import LONGEST_FOLDER

RAY_FOLDER = "r"


class PrivateFolder:
    """A new folder that belongs to this process. `remove` it at the end; killed owners' folders go when one is made."""

    def __init__(self, root: Path | None = None) -> None:
        parent = root or default_root()
        make_private(parent)
        with _lock(parent / "start.lock", wait=True):  # nobody cleans what is just being made
            _remove_leftovers(parent)
            self.path = parent / f"s-{secrets.token_hex(3)}"
            self.path.mkdir(mode=0o700)
            self._owner = _lock(self.path / "owner.lock", wait=False)

    def make(self, name: str) -> Path:
        """A folder in here."""
        inner = self.path / name
        inner.mkdir(mode=0o700, exist_ok=True)
        return inner

    def remove(self) -> None:
        """Deletes everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._owner.close()


def default_root() -> Path:
    """Where this user's folders lie: below the temporary folder, or below /tmp where Ray's sockets need that."""
    inside = f"shardline-{os.getuid()}"
    longest = Path(tempfile.gettempdir()) / inside / "s-123456" / RAY_FOLDER
    return (longest if len(str(longest)) <= LONGEST_FOLDER else Path("/tmp") / inside / "s" / "r").parents[1]


def make_private(folder: Path) -> None:
    """Makes a folder that only this user can open.

    Raises:
        ConfigurationError: it is there, and others can open it, or it is theirs.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} must be a folder that belongs to you and that nobody else can open (mode 0700): "
            "remove it, or set TMPDIR to another one"
        )


def _lock(file: Path, *, wait: bool) -> IO[bytes]:
    """An open file with a lock that ends with this process at the latest. BlockingIOError: another process has it."""
    opened = file.open("ab")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        opened.close()
        raise
    return opened


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob("s-*"):
        try:
            with _lock(folder / "owner.lock", wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its owner lives
            continue
