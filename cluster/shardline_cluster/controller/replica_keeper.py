"""Keeps one replica's process: outlives the controller, never the owner, and writes down how the replica ended.

    python replica_keeper.py FOLDER OWNER_PID COMMAND [ARGUMENT ...]

    owner (`shardline serve`) ── controller      keeper ── replica
         └───────────── watched by ────────────────┘

The keeper leads its own session, so a controller may come and go. It holds the lock file that it inherited as standard
input for as long as it lives: whoever can take that lock knows that the keeper is gone, which no process id can tell.
SIGTERM is handed on to the replica. A SIGKILL to the keeper's process group ends both; a SIGKILL to the keeper alone
takes the replica along (die_with_parent). Imports the standard library only and is run by path: a few milliseconds.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_S = 0.2  # where the system has no pidfd
PID_FILE = "keeper_pid"
SPEC_VARIABLE = "SHARDLINE_REPLICA_SPEC"
EXIT_FILE = "exit_code"
OUTPUT_FILE = "output.log"

_SHIM = Path(__file__).parents[1] / "processes" / "die_with_parent.py"


def main(arguments: list[str]) -> None:
    """Starts the replica and waits for its end, or its owner's."""
    folder, owner_pid, command = Path(arguments[0]), int(arguments[1]), arguments[2:]
    os.setsid()
    owner, wake = _owner_files(owner_pid), _signals_as_bytes()
    _write(folder / PID_FILE, str(os.getpid()))
    replica = _start(command, folder / OUTPUT_FILE)
    while replica.poll() is None:
        ready, _, _ = select.select([wake, *owner], [], [], None if owner else POLL_S)
        if wake in ready and signal.SIGTERM in os.read(wake, 64):
            replica.terminate()
        if set(owner) & set(ready) or not _exists(owner_pid):
            replica.kill()
    _write(folder / EXIT_FILE, str(replica.returncode))


def _start(command: list[str], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", str(_SHIM), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _owner_files(owner_pid: int) -> list[int]:
    """A file that becomes readable when the owner ends; none where the system has no such thing."""
    if not hasattr(os, "pidfd_open"):
        return []
    try:
        return [os.pidfd_open(owner_pid)]
    except ProcessLookupError:
        sys.exit(_line("the owner of this replica is gone"))


def _line(message: str) -> str:
    """A line in the format of the replica's own log, to whose end it is written."""
    telemetry = json.loads(os.environ.get(SPEC_VARIABLE, "{}")).get("telemetry", {})
    if telemetry.get("log_format") != "json":
        return message
    told = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": "critical", "process": "keeper"}
    return json.dumps({**told, "message": message})


def _signals_as_bytes() -> int:
    """A file from which the numbers of arriving signals can be read, so that one `select` waits for everything."""
    wake, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    return wake


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(file: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half a number."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)


if __name__ == "__main__":
    main(sys.argv[1:])
