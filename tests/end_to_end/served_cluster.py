"""A real `shardline serve` for a test: started as users start it, looked into through /proc, and killed in pieces."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.parse import urlsplit

from shardline_cluster.cli.run_file import RunFile, read_run_file
from shardline_cluster.telemetry.log_output import message_of

READY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 20.0
MARK = "SHARDLINE_TEST_CLUSTER"  # stands in the environment of every process that a cluster starts
ROUTER = "shardline_cluster.router.router_process"
LOCAL_REPLICA = "shardline_cluster.replica.replica_process"


class ServedCluster:
    """One running `serve` and everything below it."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str, log: Path, environment: dict[str, str]) -> None:
        self.process = process
        self.name = name
        self._log = log
        self._environment = environment

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    @property
    def folder(self) -> Path:
        """Under which everything lies that it writes."""
        return self._log.parent

    @property
    def run_file(self) -> RunFile:
        """What it tells other commands."""
        return read_run_file(self.name, self._environment)

    @property
    def endpoint(self) -> str:
        """The address of its routers."""
        return self.run_file.endpoints[0]

    @property
    def redis_folder(self) -> Path:
        """Where its embedded Redis keeps socket and data."""
        return Path(urlsplit(self.run_file.redis_url).path).parent

    def pids(self, words: str) -> list[int]:
        """Its living processes whose command line contains `words`."""
        return [pid for pid in self.all_pids() if words in _command_line(pid)]

    def command_lines(self) -> list[str]:
        """What every user of this machine sees of its living processes."""
        return [_command_line(pid) for pid in self.all_pids()]

    def all_pids(self) -> list[int]:
        """Its living processes, wherever in the tree they are. Redis writes over its environment: its path tells."""
        return [pid for pid in _pids() if self._is_ours(pid) and not _is_zombie(pid)]

    def _is_ours(self, pid: int) -> bool:
        return _environment_has(pid, f"{MARK}={self.name}") or f"{self._log.parent}/" in _command_line(pid)

    def routers_with_clients(self) -> list[int]:
        """The router processes that hold a client's connection."""
        port = int(self.endpoint.rpartition(":")[2])
        inodes = {inode for local, inode in _established(port) if local}
        return [pid for pid in self.pids(ROUTER) if inodes & _socket_inodes(pid)]

    def redis_pid(self) -> int:
        """The embedded server's process."""
        return self.pids(str(self.redis_folder / "redis.sock"))[0]

    def wait_until(self, condition: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
        """Polls the outside world; fails with the log."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} did not come within {within_s} s")
            time.sleep(0.02)

    def fail(self, what: str) -> NoReturn:
        """Raises with everything that the cluster said."""
        raise AssertionError(f"{what}; serve said:\n{self.log}")

    def command(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Runs another `shardline` command beside it."""
        command = [sys.executable, "-m", "shardline_cluster.cli.main", *arguments]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def stop(self) -> int:
        """Ends it as an operator does, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOPPED_WITHIN_S)


@contextmanager
def served_cluster(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[ServedCluster]:
    """`shardline serve ARGUMENTS` on a free port, ready; ended, and checked for leftovers, at the block's end."""
    with TemporaryDirectory(prefix="sl-", dir="/tmp") as folder:  # short: sockets have a limit
        cluster = _start(Path(folder), arguments, environment or {})
        try:
            cluster.wait_until(lambda: _is_ready(cluster), "ready", within_s=READY_WITHIN_S)
            yield cluster
            if cluster.process.poll() is None:
                code = cluster.stop()
                assert code == 0, f"serve exited with {code}:\n{cluster.log}"
        finally:
            _kill(cluster.process)
            cluster.wait_until(lambda: not cluster.all_pids(), "the end of all processes", within_s=STOPPED_WITHIN_S)


def _start(folder: Path, arguments: Sequence[str], more: Mapping[str, str]) -> ServedCluster:
    name = f"test-{os.getpid()}-{folder.name}"
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join(sys.path), XDG_RUNTIME_DIR=str(runtime), TMPDIR=str(folder), **more
    )
    environment[MARK] = name
    log = folder / "serve.log"
    command = [sys.executable, "-m", "shardline_cluster.cli.main", "serve", *arguments, "--name", name]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--grpc-port", "0", "--queue-terms", "short"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return ServedCluster(process, name=name, log=log, environment=environment)


def _is_ready(cluster: ServedCluster) -> bool:
    if cluster.process.poll() is not None:
        cluster.fail(f"serve exited with {cluster.process.returncode} before it was ready")
    return any(message_of(line).startswith("ready") for line in cluster.log.splitlines())


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


# --- /proc -------------------------------------------------------------------------------------------------------


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def _command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def _environment_has(pid: int, entry: str) -> bool:
    return entry.encode() in _read(pid, "environ").split(b"\0")


def _is_zombie(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"])


def _socket_inodes(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def _established(port: int) -> Iterator[tuple[bool, str]]:
    """(whether `port` is its local one, inode) of each established TCP connection that has to do with `port`."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # gRPC listens on dual-stack sockets
    for line in [line for table in tables for line in table.read_text().splitlines()[1:]]:
        fields = line.split()
        if fields[3] == "01":
            yield int(fields[1].rpartition(":")[2], 16) == port, fields[9]
