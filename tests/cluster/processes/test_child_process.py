"""Children die with their parent, are stopped in order, and explain their end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardline_cluster.processes.child_process import describe_exit, start_child, stop_child

PARENT = """
import sys, time
from shardline_cluster.processes.child_process import start_child
print(start_child([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""


def _gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.process
def test_a_child_dies_when_its_parent_is_killed() -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 10
    while not _gone(child_pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _gone(child_pid)


@pytest.mark.process
def test_a_child_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    child = start_child([sys.executable, "-c", script], output=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"

    code = stop_child(child, grace_s=0.2)
    child.stdout.close()

    assert describe_exit(code) == "was killed by SIGKILL"


def test_an_exit_code_is_told_as_such() -> None:
    assert describe_exit(3) == "exited with 3"
