"""A child process that dies with this one, and whose end is seen and explained.

Start children from a thread that lives as long as the program (the main thread, or an event loop's): Linux ties a child
to the *thread* that forked it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_SHIM = Path(__file__).with_name("die_with_parent.py")


def start_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | int | None = None,
    working_directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Starts `command` so that it is killed when this process ends, however that happens.

    The child leads its own process group (a Ctrl-C on the terminal reaches this process alone, which then stops its
    children in order) and reads nothing from standard input. `output` takes standard output and error; None inherits.
    """
    return subprocess.Popen(
        [sys.executable, "-S", "-E", str(_SHIM), str(os.getpid()), *command],
        env=dict(os.environ if environment is None else environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output if output is None else subprocess.STDOUT,
        cwd=working_directory,
        start_new_session=True,
    )


def stop_child(child: subprocess.Popen[bytes], *, grace_s: float) -> int:
    """Asks a child to end (SIGTERM), kills its group after `grace_s`, and returns its exit code."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            kill_group(child)
    return child.wait()


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kills a child and all that shares its process group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with {code}"
    return f"was killed by {signal.Signals(-code).name}"
