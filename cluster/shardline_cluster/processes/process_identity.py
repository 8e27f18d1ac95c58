"""Tells one process from every other, so that its end can be seen from its own host without asking anybody.

A process id alone is used again; together with the instant at which the process started, and with the host's boot and
process namespace, it is not. Reads /proc; on systems without it nothing is ever seen to be gone.
"""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One life of a process."""

    host: str  # boot id and process namespace; empty where the system does not tell
    pid: int
    started: int  # clock ticks after the host's boot

    @classmethod
    def of_this_process(cls) -> "ProcessIdentity":
        """The process that asks."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """The process that has this number on this host now. One that is gone already has never started."""
        return cls(_this_host(), pid, _started(pid) or 0)

    def gone(self) -> bool:
        """Whether the process is seen to have ended. False where that cannot be seen from here."""
        if not self.host or self.host != _this_host():
            return False
        return _started(self.pid) != self.started

    def kill(self) -> None:
        """Ends the process at once, if it runs on this host."""
        if self.host and self.host == _this_host() and not self.gone():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _this_host() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process started; None where there is none, or only its entry is left (a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from the third one on: the name before it may hold anything
    return None if fields[0] == "Z" else int(fields[19])
