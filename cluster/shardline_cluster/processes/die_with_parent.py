"""Runs a command that dies with the process that started it, after that one's SIGKILL too.

    python die_with_parent.py PARENT_PID COMMAND [ARGUMENT ...]

Linux sends the signal itself (prctl(2), PR_SET_PDEATHSIG), and the setting survives exec. Elsewhere a watcher process
polls for the parent. Imports the standard library's smallest pieces only, so that it costs a few milliseconds, and is
run by path, so that no package is imported.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
POLL_S = 0.2


def main(arguments: list[str]) -> None:
    """Binds this process to its parent and becomes the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the setting took effect
            os._exit(1)
    else:
        _watch(parent, os.getpid())
    os.execvp(command[0], command)


def _watch(parent: int, child: int) -> None:
    """Forks a process that kills `child` once `parent` is gone, and ends when `child` has."""
    if os.fork() != 0:
        return
    while _alive(child):
        if not _alive(parent):
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(POLL_S)
    os._exit(0)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
