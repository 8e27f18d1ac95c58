"""Keeps one replica's process: outlives the controller, never the owner, and writes down how the replica ended.

    python replica_keeper.py FOLDER OWNER_PID COMMAND [ARGUMENT ...]

    owner (`shardline serve`) ── controller ── (keeper) ── replica
         └───────── watched by the keeper ───────┘

The keeper leads its own session, so a controller may come and go. It holds the lock file that it inherited as standard
input for as long as it lives: whoever can take that lock knows that the keeper is gone, which no process id can tell.
SIGTERM is handed to the replica; a SIGKILL to the keeper's process group ends both, and a SIGKILL to the keeper alone
takes the replica along (die_with_parent). Imports the standard library only and is run by path: a few milliseconds.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import types
from pathlib import Path

POLL_S = 0.2  # where the system has no pidfd
KILLED_WITH_OWNER = 1

_SHIM = Path(__file__).parents[1] / "processes" / "die_with_parent.py"


def main(arguments: list[str]) -> int:
    """Starts the replica and waits for its end, or its owner's."""
    folder, owner_pid, command = Path(arguments[0]), int(arguments[1]), arguments[2:]
    owner = _open_owner(owner_pid)
    wake, signals = _signal_pipe()
    _write(folder / "keeper_pid", str(os.getpid()))
    with (folder / "output.log").open("ab") as output:
        replica = subprocess.Popen(
            [sys.executable, "-S", "-E", str(_SHIM), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    while replica.poll() is None:
        ready, _, _ = select.select([wake, *owner], [], [], None if owner else POLL_S)
        if signal.SIGTERM in _received(wake, ready):
            replica.terminate()
        if owner_pid_gone(owner_pid, owner, ready):
            replica.kill()
    _write(folder / "exit_code", str(replica.returncode))
    return signals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
