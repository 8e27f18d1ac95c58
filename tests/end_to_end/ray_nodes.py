"""A Ray cluster of a head and several nodes on one machine, each with its own loopback address, raylet and pretended
GPUs. Every process tree is reaped, as an init would; parts of it can be killed, stopped and started again."""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from shardline_cluster.processes import process_tree
from shardline_cluster.processes.child_process import start_child, stop_child
from shardline_cluster.serve.child_environment import child_environment
from shardline_cluster.serve.ports import free_port
from shardline_cluster.serve.ray_plan import HEAD_IP, STARTED, RayPlan, node_flags

START_WITHIN_S = 90.0
OPEN = {"RAY_AUTH_MODE": "disabled"}  # Ray reads the place of a token when it is imported
MARK = "SHARDLINE_TEST_RAY_NODE"
_HEAD = "head"


@dataclass(slots=True)
class RayNode:
    """One node: its address and what it runs in."""

    ip: str
    num_gpus: int
    mark: str  # that stands in the environment of its processes, and of no other cluster's
    process: "Popen[bytes]"

    def pids(self, words: str) -> list[int]:
        """Its living processes whose command line contains `words`."""
        return [pid for pid in _pids_with(f"{MARK}={self.mark}") if words in _command_line(pid)]

    def kill_raylet(self) -> None:
        """With SIGKILL: the machine is gone, as far as Ray can tell."""
        for pid in self.pids("raylet/raylet "):
            os.kill(pid, signal.SIGKILL)


@dataclass(slots=True)
class RayNodes:
    """All of it."""

    plan: RayPlan
    environment: Mapping[str, str]
    head: "Popen[bytes]"
    nodes: list[RayNode] = field(default_factory=list)

    def add(self, ip: str, *, num_gpus: int) -> RayNode:
        """One more node, or one that has been killed, once it is up."""
        for former in [node for node in self.nodes if node.ip == ip]:
            stop_child(former.process, grace_s=10.0)
            self.nodes.remove(former)
        process = self._start(self._command(ip, num_gpus), f"node-{ip}-{time.monotonic_ns()}.log", self._mark(ip))
        self.nodes.append(RayNode(ip, num_gpus, self._mark(ip), process))
        return self.nodes[-1]

    def of(self, pid: int) -> RayNode:
        """The node on which a process runs."""
        return next(node for node in self.nodes if pid in node.pids(""))

    def ranks_by_node(self) -> dict[str, int]:
        """How many ranks run at each address, leaders too."""
        pids = (*self.ranks(), *self.leaders())
        return dict(Counter(self.of(pid).ip for pid in pids))

    def node_without_a_leader(self) -> RayNode:
        """One that has ranks alone."""
        (ip,) = self.ranks_by_node().keys() - {self.of(pid).ip for pid in self.leaders()}
        return next(node for node in self.nodes if node.ip == ip)

    def ranks(self) -> list[int]:
        """The processes of all ranks but the leaders."""
        return [pid for node in self.nodes for pid in node.pids("ray::RankActor")]

    def leaders(self) -> list[int]:
        """The processes of all leaders."""
        return [pid for node in self.nodes for pid in node.pids("ray::ReplicaActor")]

    def kill_head(self) -> None:
        """The head's process tree, state and all."""
        os.killpg(self.head.pid, signal.SIGKILL)
        for pid in _pids_with(f"{MARK}={self._mark(_HEAD)}"):
            os.kill(pid, signal.SIGKILL)
        self.head.wait()

    def start_head(self) -> None:
        """Again, with the command and the state of before."""
        self.plan.forget_last_start()
        self.head = self._start(self.plan.head_command(), f"head-{time.monotonic_ns()}.log", self._mark(_HEAD))

    def close(self) -> None:
        """Ends everything."""
        for process in (*(node.process for node in self.nodes), self.head):
            stop_child(process, grace_s=10.0)

    def _command(self, ip: str, num_gpus: int) -> tuple[str, ...]:
        folder = self.plan.folder / ip.rpartition(".")[2]
        return (
            *self.plan.ray_command,
            *("start", f"--address={self.plan.address}", f"--node-ip-address={ip}"),
            *(f"--num-gpus={num_gpus}", "--num-cpus=2", *node_flags(folder)),
        )

    def _mark(self, name: str) -> str:
        return f"{self.plan.folder}:{name}"

    def _start(self, command: Sequence[str], name: str, mark: str) -> "Popen[bytes]":
        shim = [sys.executable, "-S", "-E", process_tree.__file__, "1.0"]
        log = self.plan.folder / name
        is_head = mark == self._mark(_HEAD)
        environment = {**(self.plan.head_environment() if is_head else self.plan.environment()), **self.environment}
        with log.open("wb") as output:
            child = start_child(
                [*shim, *command], environment=child_environment({**environment, MARK: mark}), output=output
            )
        deadline = time.monotonic() + START_WITHIN_S
        while STARTED.encode() not in log.read_bytes():
            assert child.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return child


@contextmanager
def running_ray_nodes(*num_gpus: int, environment: Mapping[str, str] | None = None) -> Iterator[RayNodes]:
    """A head, and a node for each number of GPUs at 127.0.0.3 and behind; gone with all their processes at the end."""
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp") as folder:
        plan = RayPlan(
            ray_command=(sys.executable, "-m", "ray.scripts.scripts"),
            folder=Path(folder),
            gcs_port=free_port(HEAD_IP),
            client_port=free_port(HEAD_IP),
        )
        theirs = {**OPEN, "TMPDIR": folder, **(environment or {})}
        cluster = RayNodes(plan, theirs, None)  # type: ignore[arg-type]  # its head comes now
        cluster.start_head()
        try:
            for number, gpus in enumerate(num_gpus):
                cluster.add(f"127.0.0.{3 + number}", num_gpus=gpus)
            yield cluster
        finally:
            cluster.close()


def _pids_with(entry: str) -> list[int]:
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in pids if entry.encode() in _read(pid, "environ").split(b"\0")]


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def _command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")
