"""A process is seen to be gone from its own host only, and another one with its number is not taken for it."""

import subprocess
import sys
from dataclasses import replace

import pytest

from shardline_cluster.processes.process_identity import ProcessIdentity

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TELL = "from shardline_cluster.processes.process_identity import ProcessIdentity as P; p = P.of_this_process()\n"


def test_a_living_process_is_not_gone() -> None:
    assert not ProcessIdentity.of_this_process().gone()


def test_another_process_under_the_same_number_is_not_taken_for_it() -> None:
    here = ProcessIdentity.of_this_process()

    assert replace(here, started=here.started - 1).gone()


def test_a_process_of_another_host_cannot_be_seen_to_be_gone() -> None:
    here = ProcessIdentity.of_this_process()

    assert not replace(here, host="elsewhere", started=0).gone()


@pytest.mark.process
def test_an_ended_process_is_gone_even_before_its_parent_has_asked_for_it() -> None:
    script = TELL + "print(p.host, p.pid, p.started, flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert child.stdout is not None
    host, pid, started = child.stdout.read().split()  # to its end: the child has closed its output

    identity = ProcessIdentity(host.decode(), int(pid), int(started))
    while not identity.gone():
        pass
    child.wait()
    child.stdout.close()

    assert identity.gone()


@pytest.mark.process
def test_only_the_very_process_is_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    identity = ProcessIdentity.of(child.pid)

    replace(identity, started=identity.started + 1).kill()
    replace(identity, host="elsewhere").kill()
    alive = child.poll() is None
    identity.kill()

    assert alive
    assert child.wait(20) == -9
