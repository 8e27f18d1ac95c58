"""Runs a command and sees to it that nothing of what it started is left behind.

    python process_tree.py GRACE_S COMMAND [ARGUMENT ...]

For programs such as `ray start`, whose own children start children in sessions of their own: no process group holds
them all. On Linux this process adopts every orphan below it (prctl(2), PR_SET_CHILD_SUBREAPER) and ends only when it
has no child left. It does so when the command ends, when it is told to (SIGTERM, handed on to the command, then GRACE_S
seconds of patience), and at once when its own parent dies. Elsewhere it can only kill the command's process group.

Started with `start_child`, whose parent-death signal it turns from SIGKILL into SIGTERM, so that it has time to clean
up; a SIGKILL of this very process is the one thing that it cannot clean up after. Standard library only, run by path.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.1


def main(arguments: list[str]) -> int:
    """Runs the command, cleans up, and returns the command's exit code as a shell would tell it."""
    grace_s, command = float(arguments[0]), arguments[1:]
    parent = os.getppid()
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told_to_end.append(number))
    if sys.platform == "linux":
        _adopt_orphans()
    child = subprocess.Popen(command, start_new_session=True)
    give_up = float("inf")
    while child.poll() is None and time.monotonic() < give_up and os.getppid() == parent:
        if told_to_end and give_up == float("inf"):
            child.terminate()
            give_up = time.monotonic() + grace_s
        _reap_adopted(child.pid)
        time.sleep(POLL_S)
    kill_all(child)
    code = child.wait()
    return code if code >= 0 else 128 - code


def kill_all(child: "subprocess.Popen[bytes]") -> None:
    """Kills everything below this process until there is nothing left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    while sys.platform == "linux" and (descendants := _descendants(os.getpid())):
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap_adopted(child.pid)
        time.sleep(POLL_S / 10)


def _adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _reap_adopted(command_pid: int) -> None:
    """Takes adopted children that have ended off the system's books; the command itself is left to its `Popen`."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != command_pid:
            os.waitpid(ended.si_pid, 0)


def _descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents first."""
    parents = {child: parent for child in _all_pids() if (parent := _parent(child)) is not None}
    found = [pid]
    for ancestor in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])  # the name before it may hold spaces and parentheses


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
