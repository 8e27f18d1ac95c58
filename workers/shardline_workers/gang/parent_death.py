"""A rank process that its leader started dies with it, after the leader's SIGKILL too.

The system's signal goes to the processes that the ending *thread* started, so whoever starts ranks must live as long as
they shall. Where there is no such signal, the broken connection to the leader ends a rank.
"""

import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping

PARENT_VARIABLE = "SHARDLINE_GANG_PARENT"  # the process that this one must not outlive
_PR_SET_PDEATHSIG = 1


def die_with_parent(environment: MutableMapping[str, str]) -> None:
    """Binds this process to the one that the environment names, if any. To be called first."""
    parent = environment.pop(PARENT_VARIABLE, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the setting took effect
        os._exit(1)
