"""CPU time of every process and thread of a cluster, from /proc: who computes how long for a token, and who idles.

    python -m benchmarks.process_cpu PID --seconds 10       # PID of `shardline serve`; its whole tree is watched

`serve_load --processes PID` counts the same over its run and divides by the tokens that came back. CPU time, unlike the
wall's, is comparable on a machine that others use too. Linux only.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_tree import PROC, tree_of

# A process is known by a word of its command; the first that fits names it. The replica's keeper is told its command.
_ROLES = (
    ("replica_keeper", "keeper"),
    ("router_process", "router"),
    ("replica_process", "replica"),
    ("ray::ReplicaActor", "replica"),
    ("ray::ControllerActor", "controller"),
    ("ray_controller_process", "controller"),
    ("controller_process", "controller"),
    ("template_child", "chat template"),
    ("redis-server", "redis"),
    ("valkey-server", "redis"),
    ("serve_load", "client"),
    ("shardline serve ", "serve"),
    ("cli.main serve ", "serve"),
    ("ray::", "ray"),
    ("/ray/", "ray"),  # its servers and monitors
    ("process_tree", "ray"),  # around them
)
OWN_PROCESS = "client"

ThreadKey = tuple[str, int, str]  # role, thread id, thread name


@dataclass(frozen=True, slots=True)
class ProcessCpu:
    """CPU seconds that threads had used at one instant."""

    at_s: float  # time.perf_counter
    threads: Mapping[ThreadKey, float]

    def since(self, before: "ProcessCpu") -> dict[str, float]:
        """CPU seconds used since `before`, by `role/thread`; threads of one name are added up.

        Threads that ended in between are missing: their last time is not to be had.
        """
        used: dict[str, float] = {}
        for key, cpu_s in self.threads.items():
            role, _, thread = key
            name = f"{role}/{thread}"
            used[name] = used.get(name, 0.0) + cpu_s - before.threads.get(key, 0.0)
        return used


def read_cpu(root: int, proc: Path = PROC) -> ProcessCpu:
    """The tree below process `root`, itself included, and this process.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: the system has no /proc as Linux has it.
    """
    pids = {*tree_of(root, proc), os.getpid()}
    threads = {key: cpu_s for pid in pids for key, cpu_s in _threads(pid, proc)}
    return ProcessCpu(time.perf_counter(), threads)


def by_process(used_s: Mapping[str, float]) -> dict[str, float]:
    """The figures of `ProcessCpu.since`, threads of a process added up."""
    roles: dict[str, float] = {}
    for name, cpu_s in used_s.items():
        role = name.partition("/")[0]
        roles[role] = roles.get(role, 0.0) + cpu_s
    return roles


def cpu_report(before: ProcessCpu, after: ProcessCpu, *, num_tokens: int) -> dict[str, object]:
    """What a run used, in milliseconds for each of its tokens; busiest first, without those that used nothing."""
    used = after.since(before)
    processes = by_process(used)
    return {
        "wall_s": round(after.at_s - before.at_s, 3),
        "cores_used": round(sum(processes.values()) / (after.at_s - before.at_s), 3),
        "cpu_ms_per_token": round(1e3 * sum(processes.values()) / num_tokens, 4),
        "by_process": _per_token(processes, num_tokens),
        "by_thread": _per_token(used, num_tokens),
    }


def _per_token(used_s: Mapping[str, float], num_tokens: int) -> dict[str, float]:
    busiest = sorted(used_s.items(), key=lambda item: -item[1])
    figures = {name: round(1e3 * cpu_s / num_tokens, 4) for name, cpu_s in busiest}
    return {name: figure for name, figure in figures.items() if figure > 0}


def _threads(pid: int, proc: Path) -> Iterable[tuple[ThreadKey, float]]:
    folder = proc / str(pid)
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        tasks = list((folder / "task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return
    for task in tasks:
        try:
            name, cpu_s = (task / "comm").read_text().strip(), _cpu_s(task)
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield (role_of(command, pid), int(task.name), name), cpu_s


def role_of(command: str, pid: int) -> str:
    """What a process is in the cluster; a stranger is called by its program's name and its id."""
    if pid == os.getpid():
        return OWN_PROCESS
    known = next((role for word, role in _ROLES if word in command), None)
    return known or f"{Path(command.partition(' ')[0]).name} {pid}"


def _cpu_s(task: Path) -> float:
    """From the scheduler, in nanoseconds; where it keeps no such books, from the clock's ticks."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> int:
    """Watches a tree for a while and prints CPU milliseconds for each second, by process and by thread."""
    parser = argparse.ArgumentParser(prog="process_cpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pid", type=int, help="of `shardline serve`")
    parser.add_argument("--seconds", type=float, default=10.0, help="to watch (default %(default)g)")
    arguments = parser.parse_args(argv)
    try:
        before = read_cpu(arguments.pid)
        time.sleep(arguments.seconds)
        used = read_cpu(arguments.pid).since(before)
    except OSError as error:
        print(f"process_cpu: {error}", file=sys.stderr)
        return 1
    per_s = {name: round(1e3 * cpu_s / arguments.seconds, 3) for name, cpu_s in sorted(used.items())}
    print(json.dumps({"cpu_ms_per_s": per_s}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
