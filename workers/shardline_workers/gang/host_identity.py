"""Which processes see each other, and how one that is gone has ended. Linux tells; elsewhere little is known."""

import contextlib
import os
import select
import signal
import socket
from pathlib import Path


def host_name() -> str:
    """For people."""
    return socket.gethostname()


def host_identity(root: Path = Path("/")) -> str:
    """Equal for processes that see each other's ids and share memory: of one boot, in one container or in none.

    Args:
        root: where /proc and /dev lie.
    """
    try:
        boot = (root / "proc/sys/kernel/random/boot_id").read_text().strip()
        ids = (root / "proc/self/ns/pid").readlink()
        memory = (root / "dev/shm").stat().st_dev
    except OSError:
        return f"{socket.gethostname()} {os.getppid()}"  # no Linux: children of one process, at least
    return f"{boot} {ids} {memory}"


class WatchedProcess:
    """A process of this host, held by a descriptor, so that a successor with its id is never meant."""

    def __init__(self, pid: int) -> None:
        """Takes hold of it.

        Raises:
            OSError: it is gone, or this system has no such descriptors.
        """
        self._pid = pid
        self._file = os.pidfd_open(pid)

    def has_ended(self, limit_s: float) -> bool:
        """Whether it ends within so many seconds."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it."""
        try:
            status = Path(f"/proc/{self._pid}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] in "tT"

    def kill(self) -> None:
        """With SIGKILL, which ends a stopped process too."""
        with contextlib.suppress(OSError):  # it has ended
            signal.pidfd_send_signal(self._file, signal.SIGKILL)

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._file)


def end_in_words(exit_code: int | None) -> str:
    """How a child ended, by what subprocess tells."""
    if exit_code is None:
        return "ended"
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
