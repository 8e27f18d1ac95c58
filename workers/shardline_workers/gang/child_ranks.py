"""Rank processes that the leader starts itself, on its own host."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import shardline_protos
import shardline_workers
from shardline_workers.gang.gang_address import GangAddress
from shardline_workers.gang.host_identity import end_in_words
from shardline_workers.gang.parent_death import PARENT_VARIABLE

_COMMAND = (sys.executable, "-P", "-m", "shardline_workers.gang.rank_process")
_REAP_S = 5.0  # for a killed process to be gone


class ChildRanks:
    """Some processes, which one thread starts and outlives: see `parent_death`."""

    def __init__(self, count: int, address: GangAddress, *, environment: Mapping[str, str]) -> None:
        """Starts them.

        Args:
            count: how many.
            address: where they find their leader.
            environment: theirs, beside what they need of the gang.
        """
        self._processes: list[subprocess.Popen[bytes]] = []
        self._started, self._is_over = threading.Event(), threading.Event()
        self._failure: OSError | None = None
        told = {
            **environment,
            **address.environment(),
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONPATH": _path(environment),
        }
        arguments = (*_COMMAND, "--leader", str(address))
        self._keeper = threading.Thread(
            target=self._keep, args=(count, arguments, told), name="gang keeper", daemon=True
        )
        self._keeper.start()
        self._started.wait()
        if self._failure is not None:
            self.close()
            raise self._failure

    @property
    def pids(self) -> list[int]:
        """Of all, those that have ended too."""
        return [process.pid for process in self._processes]

    def ends(self) -> list[str]:
        """A text for each one that has ended."""
        return [
            f"process {process.pid} {end_in_words(process.returncode)}"
            for process in self._processes
            if process.poll() is not None
        ]

    def exit_code(self, pid: int) -> int | None:
        """How one ended, which has; None where it is none of these."""
        return next((process.wait(_REAP_S) for process in self._processes if process.pid == pid), None)

    def kill(self) -> None:
        """All of them, stopped ones too. Returns at once."""
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        """Kills and reaps them."""
        self.kill()
        for process in self._processes:
            process.wait(_REAP_S)
        self._is_over.set()
        self._keeper.join()

    def _keep(self, count: int, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        try:
            for _ in range(count):
                self._processes.append(subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL))
        except OSError as error:
            self._failure = error
        self._started.set()
        self._is_over.wait()


def _path(environment: Mapping[str, str]) -> str:
    """Ranks run the leader's code, wherever it lies."""
    roots = [str(Path(package.__path__[0]).parent) for package in (shardline_workers, shardline_protos)]
    inherited = environment.get("PYTHONPATH")
    return os.pathsep.join([*dict.fromkeys(roots), *([inherited] if inherited else [])])
