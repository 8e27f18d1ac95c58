"""Which processes live below another one, and what memory each takes, from /proc. Linux only."""

from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
_PPID = 1  # place behind the command's name in /proc/PID/stat


def process_stats(proc: Path = PROC) -> dict[int, list[str]]:
    """Fields of /proc/PID/stat behind the command's name, of every process that lives now."""
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            try:
                # The name may hold spaces and parentheses.
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
    return found


def tree_in(stats: dict[int, list[str]], root: int) -> list[int]:
    """`root`, even where it has ended, and all processes below it, parents first."""
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[_PPID]), []).append(pid)
    found = [root]
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, []))
    return found


def tree_of(root: int, proc: Path = PROC) -> list[int]:
    """`root` and all processes below it, parents first.

    Raises:
        ProcessLookupError: there is no such process.
    """
    if not (proc / str(root)).exists():
        raise ProcessLookupError(f"there is no process {root}: give the id of `shardline serve`")
    return tree_in(process_stats(proc), root)


def memory_totals(pid: int, proc: Path = PROC) -> dict[str, int]:
    """Bytes of a process by the kernel's names: Rss, Pss, Anonymous and others.

    Pss, the proportional set size, counts pages that several processes share in parts, so that a tree adds up.

    Raises:
        OSError: it has ended, or is another user's.
    """
    lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
    parts = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) << 10 for name, _, rest in parts if rest.endswith(" kB")}


def pss_mib(pids: Iterable[int]) -> float:
    """Proportional set size of processes together; those that have ended count nothing."""
    total = 0
    for pid in pids:
        try:
            total += memory_totals(pid).get("Pss", 0)
        except OSError:  # it ended meanwhile
            continue
    return total / 2**20
