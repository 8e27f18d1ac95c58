"""Nothing below the command is left: not after its end, not after SIGTERM, not after the death of the parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shardline_cluster.processes import process_tree
from shardline_cluster.processes.child_process import start_child, stop_child

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="orphans can be adopted on Linux only"),
]

SHIM = [sys.executable, "-S", "-E", process_tree.__file__]
# Leaves a grandchild in a session of its own, prints its id, and goes on as it is told.
COMMAND = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
print(subprocess.Popen(sleeper, start_new_session=True).pid, flush=True)
{then}
"""
PARENT = """
import sys, time
from shardline_cluster.processes.child_process import start_child
start_child(sys.argv[1:])
time.sleep(60)
"""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 s in vain"
        time.sleep(0.02)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _start(then: str, grace_s: float = 5.0) -> tuple["subprocess.Popen[bytes]", int]:
    tree = start_child([*SHIM, str(grace_s), sys.executable, "-c", COMMAND.format(then=then)], output=subprocess.PIPE)
    assert tree.stdout is not None
    return tree, int(tree.stdout.readline())


def _close(tree: "subprocess.Popen[bytes]") -> None:
    assert tree.stdout is not None
    tree.stdout.close()


def test_what_the_command_left_behind_ends_with_it_and_its_exit_code_is_told() -> None:
    tree, grandchild = _start("sys.exit(7)")

    code = tree.wait(20)
    _close(tree)

    assert code == 7
    assert _gone(grandchild)


def test_sigterm_gives_the_command_its_grace_and_then_kills_all() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    tree, grandchild = _start(stubborn, grace_s=0.3)
    assert tree.stdout is not None
    assert tree.stdout.readline() == b"deaf\n"

    code = stop_child(tree, grace_s=20)
    _close(tree)

    assert code == 128 + signal.SIGKILL
    assert _gone(grandchild)


def test_a_command_that_ends_on_sigterm_is_not_waited_for_any_longer() -> None:
    tree, grandchild = _start("time.sleep(60)", grace_s=60.0)

    code = stop_child(tree, grace_s=20)
    _close(tree)

    assert code == 128 + signal.SIGTERM
    assert _gone(grandchild)


def test_everything_ends_when_the_parent_is_killed() -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [*SHIM, "60", sys.executable, "-c", COMMAND.format(then="time.sleep(60)")]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    grandchild = int(parent.stdout.readline())

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _close(parent)

    _until(lambda: _gone(grandchild))
