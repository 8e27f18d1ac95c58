"""Files in shared memory that a group of ranks maps, and how nothing is left of them.

The first rank that comes makes the file, full of zeros; the others find it by the group's name. When all have joined,
its name is taken away: from then on the memory is freed with the last process that has it, however that ends. What a
death before that leaves is swept when the next group starts: each rank holds a lock on the file while it uses it, and
locks fall with their process, so a file that nobody has locked is nobody's.
"""

import errno
import fcntl
import os
import re
from pathlib import Path

from shardline_workers.collectives.errors import CommunicatorError

SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "shardline-ranks-"
_GROUP_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class SharedSegment:
    """One rank's hold on a group's file. Until `close` it is locked, which keeps sweepers away."""

    def __init__(self, group_name: str, num_bytes: int, *, folder: Path = SHARED_MEMORY) -> None:
        """Opens the file, or makes it with all its memory reserved.

        Args:
            group_name: the same for all ranks and never used before on this host.
            num_bytes: what all ranks reckon with.
            folder: where shared memory is mounted.

        Raises:
            CommunicatorError: there is no shared memory here, too little of it, or the file is somebody else's.
        """
        if not _GROUP_NAME.fullmatch(group_name):
            raise CommunicatorError(
                f"a group's name must be 1 to 100 letters, digits, '.', '_' or '-', not {group_name!r}"
            )
        if not folder.is_dir():
            raise CommunicatorError(
                f"there is no {folder} here, so ranks cannot share memory: mount a tmpfs there, or exchange by gloo"
            )
        self._path = folder / f"{_PREFIX}{group_name}"
        self.file = _locked_file(self._path)
        try:
            os.posix_fallocate(self.file, 0, num_bytes)  # what is there already stays as it is
        except OSError as error:
            self.unlink()
            self.close()
            raise CommunicatorError(_no_memory(folder, num_bytes, error)) from error

    def unlink(self) -> None:
        """Takes the name away: nobody can join any more, and nothing is left behind. By one rank, when all have it."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of it. What was mapped stays until it is unmapped."""
        os.close(self.file)


def sweep_segments(*, folder: Path = SHARED_MEMORY) -> list[Path]:
    """Deletes this user's files that no living rank holds; gives what was deleted.

    Args:
        folder: where shared memory is mounted.
    """
    return [path for path in sorted(folder.glob(f"{_PREFIX}*")) if _delete_if_left(path)]


def _locked_file(path: Path) -> int:
    while True:
        file = _opened(path)
        fcntl.flock(file, fcntl.LOCK_SH)
        if _is_at(path, file):
            return file
        os.close(file)  # swept between opening and locking


def _opened(path: Path) -> int:
    try:
        file = os.open(path, _OPEN_FLAGS, 0o600)
    except OSError as error:
        raise CommunicatorError(f"{path} cannot be opened: {error.strerror}") from error
    owner = os.fstat(file).st_uid
    if owner != os.geteuid():
        os.close(file)
        raise CommunicatorError(
            f"{path} belongs to user {owner}, not to {os.geteuid()}: take another name for the group"
        )
    return file


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _no_memory(folder: Path, num_bytes: int, error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return f"{num_bytes} bytes of shared memory cannot be reserved in {folder}: {error.strerror}"
    system = os.statvfs(folder)
    free, size = (blocks * system.f_frsize for blocks in (system.f_bavail, system.f_blocks))
    return (
        f"ranks need {num_bytes} bytes of shared memory, but {folder} has {free} bytes free of {size}: give it more"
        " (docker run --shm-size=256m; on Kubernetes an emptyDir with medium Memory mounted there; else mount -o"
        f" remount,size=… {folder}), or exchange by gloo"
    )


def _delete_if_left(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # gone meanwhile, or another user's
    try:
        return _deleted(path, file)
    finally:
        os.close(file)


def _deleted(path: Path, file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if os.fstat(file).st_uid != os.geteuid() or not _is_at(path, file):
        return False
    path.unlink()
    return True
