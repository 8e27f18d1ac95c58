"""Memory of every process of a cluster, from /proc: its own, its share of what is shared, and that of weights' files.

    python -m benchmarks.process_memory PID       # PID of `shardline serve`; its whole tree is looked at

The proportional set size (PSS) divides each shared page among those who map it, so that the sum over all processes is
what the cluster takes; the resident set size (RSS) counts it in full for each. Linux only.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_cpu import role_of
from benchmarks.process_tree import PROC, memory_totals, tree_of

KIB = 1 << 10
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$")
_WEIGHTS = (".packed", ".gguf", ".safetensors")
# What Ray starts, by a word of its command: process_cpu knows only our own processes.
_RAY_ROLES = (
    ("process_tree.py", "process tree"),
    ("ray::ReplicaActor", "replica"),
    ("ray::ControllerActor", "controller's actor"),
    ("gcs_server", "ray gcs"),
    ("raylet/raylet", "ray raylet"),
    ("ray::DashboardAgent", "ray agent"),
    ("dashboard/agent", "ray agent"),
    ("ray::RuntimeEnvAgent", "ray agent of environments"),
    ("runtime_env/agent", "ray agent of environments"),
    ("dashboard/dashboard", "ray dashboard"),
    ("ray.util.client.server", "ray client server"),
    ("ray.scripts.scripts", "ray start"),
    ("default_worker.py", "ray idle worker"),
    ("ray::IDLE", "ray idle worker"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """One process at one instant, in bytes."""

    role: str
    pid: int
    rss: int
    pss: int
    anonymous: int  # of the RSS: its own pages, in no file
    weights_files: int  # of the RSS: of mapped files of weights, packed or not


def read_memory(root: int, proc: Path = PROC) -> list[ProcessMemory]:
    """The tree below process `root`, itself included; largest share first.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: the system has no /proc as Linux has it.
    """
    found = [memory for pid in tree_of(root, proc) if (memory := _of_process(pid, proc)) is not None]
    return sorted(found, key=lambda memory: -memory.pss)


def memory_report(processes: Sequence[ProcessMemory]) -> dict[str, object]:
    """By role in MiB, roles of several processes added up, and the sum of all."""
    roles = sorted({memory.role for memory in processes}, key=lambda role: -_sum(processes, role))
    return {
        "total_pss_mib": round(sum(memory.pss for memory in processes) / 2**20, 1),
        "by_role_mib": {role: _figures([memory for memory in processes if memory.role == role]) for role in roles},
    }


def _sum(processes: Iterable[ProcessMemory], role: str) -> int:
    return sum(memory.pss for memory in processes if memory.role == role)


def _figures(processes: Sequence[ProcessMemory]) -> dict[str, float]:
    figures: dict[str, float] = {"processes": len(processes)}
    for name in ("pss", "rss", "anonymous", "weights_files"):
        figures[name] = round(sum(getattr(memory, name) for memory in processes) / 2**20, 1)
    return figures


def _of_process(pid: int, proc: Path) -> ProcessMemory | None:
    """None where it has ended."""
    folder = proc / str(pid)
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        totals = memory_totals(pid, proc)
        weights = _weights_bytes((folder / "smaps").read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ProcessMemory(
        role=_role(command, pid),
        pid=pid,
        rss=totals["Rss"],
        pss=totals["Pss"],
        anonymous=totals["Anonymous"],
        weights_files=weights,
    )


def _role(command: str, pid: int) -> str:
    known = next((role for word, role in _RAY_ROLES if word in command), None)
    return known or role_of(command, pid)


def _weights_bytes(lines: Iterable[str]) -> int:
    """Resident bytes of mappings of weights."""
    total, is_weights = 0, False
    for line in lines:
        if mapping := _MAPPING.match(line):
            is_weights = mapping[1].removesuffix(" (deleted)").endswith(_WEIGHTS)
        elif is_weights and line.startswith("Rss:"):
            total += int(line.split()[1]) * KIB
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Looks once and prints."""
    parser = argparse.ArgumentParser(prog="process_memory", description=__doc__.splitlines()[0])
    parser.add_argument("pid", type=int, help="of `shardline serve`")
    arguments = parser.parse_args(argv)
    try:
        print(json.dumps(memory_report(read_memory(arguments.pid)), indent=2))
    except OSError as error:
        print(f"process_memory: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
