"""Replicas as plain processes of this machine, for a laptop without Ray and for campaigns of faults.

What holds: replicas live in the lifetime of one *owner* (`shardline serve`): they die with it, after its SIGKILL too. A
controller that dies leaves them alone, and the next one finds them here again, the exit codes of those that ended
meanwhile included. The folder is the launcher's whole memory, one folder for each incarnation:

    FOLDER/INCARNATION/spec.json     what was started
                       lock          locked by the keeper while it lives
                       keeper_pid    leader of the process group
                       exit_code     written by the keeper once the replica has ended
                       output.log    what the replica printed

Two controllers must not share a folder at one time; `controller_process` sees to that.
"""

import fcntl
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shardline_cluster.controller.local_cards import local_cards
from shardline_cluster.controller.replica_keeper import EXIT_FILE, OUTPUT_FILE, PID_FILE, SPEC_VARIABLE
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.fleet.asked_shape import GPU_RESOURCE
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.planning.rank_nodes import RankNode
from shardline_cluster.processes.child_process import describe_exit
from shardline_cluster.processes.log_cap import cap_log
from shardline_cluster.telemetry.log_output import message_of

REPLICA_COMMAND = (sys.executable, "-P", "-m", "shardline_cluster.replica.replica_process")
SPEC_FILE = "spec.json"
LONGEST_LAST_WORDS = 400  # characters of a replica's last line that are told as the reason

_KEEPER = Path(__file__).with_name("replica_keeper.py")


class ProcessLauncher:
    """Implements ReplicaLauncher with a keeper process for each replica."""

    def __init__(
        self,
        folder: Path,
        *,
        owner_pid: int,
        command: Sequence[str] = REPLICA_COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._owner_pid = owner_pid
        self._command = tuple(command)
        self._environment = dict(os.environ if environment is None else environment)
        self._keeper_pids: dict[str, int] = {}  # children of this process, to be reaped

    @property
    def gives_whole_gpus(self) -> bool:
        """See ReplicaLauncher: two that run on `cuda:0` share it."""
        return False

    def inventory(self, resource: str) -> Sequence[RankNode]:
        """See ReplicaLauncher: the cards of this machine."""
        cards = local_cards() if resource == GPU_RESOURCE else ()
        host = socket.gethostname()
        return tuple(
            RankNode(name=f"{host}:{card}", resource=resource, host=host, free_slots=n, num_slots=n, accelerator=card)
            for card, n in Counter(cards).items()
        )

    def start(self, spec: ReplicaSpec) -> None:
        """See ReplicaLauncher."""
        folder = self._folder / spec.incarnation
        folder.mkdir(mode=0o700)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the keeper inherits it: there is no moment without a holder
            (folder / SPEC_FILE).write_text(to_json(spec), "utf-8")
            self._keeper_pids[spec.incarnation] = self._start_keeper(folder, spec, lock.fileno())

    def observe(self) -> Sequence[ReplicaObservation]:
        """See ReplicaLauncher."""
        for incarnation in [i for i, pid in self._keeper_pids.items() if _reaped(pid)]:
            del self._keeper_pids[incarnation]
        folders = [file.parent for file in sorted(self._folder.glob(f"*/{SPEC_FILE}"))]
        return tuple(seen for folder in folders if (seen := self._observation(folder)) is not None)

    def stop(self, incarnation: str) -> None:
        """See ReplicaLauncher."""
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self._keeper_pid(incarnation), signal.SIGTERM)

    def kill(self, incarnation: str) -> None:
        """See ReplicaLauncher."""
        with suppress(ProcessLookupError, FileNotFoundError):
            os.killpg(self._keeper_pid(incarnation), signal.SIGKILL)

    def forget(self, incarnation: str) -> None:
        """See ReplicaLauncher."""
        shutil.rmtree(self._folder / incarnation, ignore_errors=True)

    def close(self) -> None:
        """Replicas live on, for the next launcher with this folder and the same owner."""
        self._keeper_pids.clear()

    def _start_keeper(self, folder: Path, spec: ReplicaSpec, lock: int) -> int:
        keeper = [sys.executable, "-S", "-E", str(_KEEPER), str(folder), str(self._owner_pid)]
        with (folder / OUTPUT_FILE).open("ab") as output:
            files = [(os.POSIX_SPAWN_DUP2, lock, 0)]
            files += [(os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)]
            return os.posix_spawn(  # not Popen, which complains of children that outlive it: these are meant to
                sys.executable,
                [*keeper, *self._command],
                {**self._environment, SPEC_VARIABLE: to_json(spec)},
                file_actions=files,
            )

    def _observation(self, folder: Path) -> ReplicaObservation | None:
        try:
            spec = from_json(ReplicaSpec, (folder / SPEC_FILE).read_text("utf-8"))
            alive = _locked(folder / "lock")
        except FileNotFoundError:  # forgotten a moment ago
            return None
        if alive:
            cap_log(folder / OUTPUT_FILE)
            return ReplicaObservation(spec.replica, spec.incarnation, alive=True, gang=spec.gang)
        code = _exit_code(folder / EXIT_FILE)
        return ReplicaObservation(
            spec.replica,
            spec.incarnation,
            alive=False,
            had_drained=code == 0,
            reason=_reason(code, folder / OUTPUT_FILE),
        )

    def _keeper_pid(self, incarnation: str) -> int:
        """The keeper's process id, which is sure to be its own only while it holds its lock.

        Raises:
            ProcessLookupError: it is gone.
            FileNotFoundError: it has not begun yet, or the replica was forgotten.
        """
        folder = self._folder / incarnation
        if not _locked(folder / "lock"):
            raise ProcessLookupError(incarnation)
        return self._keeper_pids.get(incarnation) or int((folder / PID_FILE).read_text())


def _reaped(pid: int) -> bool:
    """Takes a child that has ended off the system's books."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _locked(file: Path) -> bool:
    """Whether somebody holds the lock of `file`."""
    with file.open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _exit_code(file: Path) -> int | None:
    """How the replica ended; None where its keeper could not write it down."""
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return None


def _reason(code: int | None, output: Path) -> str:
    """How it ended; where it ended itself as failed, its last words most likely say why."""
    if code is None:
        return "was killed together with its keeper"
    last_words = _last_line(output) if code > 0 else ""
    return f"{describe_exit(code)}: {last_words}" if last_words else describe_exit(code)


def _last_line(output: Path) -> str:
    """The last line that a replica printed, from the last few thousand bytes of its output."""
    try:
        with output.open("rb") as log:
            log.seek(max(0, output.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    told = [line.strip() for line in lines if line.strip()]
    return message_of(told[-1])[:LONGEST_LAST_WORDS] if told else ""
