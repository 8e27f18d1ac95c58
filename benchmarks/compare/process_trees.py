"""CPU time of a process tree, signals to it, and how busy the whole machine is, from /proc. Linux only."""

import os
import signal
import time
from dataclasses import dataclass

from benchmarks.process_tree import PROC, process_stats, tree_in
from benchmarks.surroundings import load_average

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME, _CSTIME = 11, 14  # places behind the command's name in /proc/PID/stat
_IDLE, _IOWAIT, _STEAL = 3, 4, 7  # places in the first line of /proc/stat


def tree(root: int) -> list[int]:
    """The process and all below it that live now."""
    return tree_in(process_stats(), root)


def tree_cpu_s(root: int) -> float:
    """CPU time of the tree so far, of its ended and awaited members too, in seconds."""
    stats = process_stats()
    ticks = sum(int(tick) for pid in tree_in(stats, root) if pid in stats for tick in stats[pid][_UTIME : _CSTIME + 1])
    return ticks / _TICKS_PER_S


def signal_tree(root: int, number: signal.Signals) -> None:
    """Sends a signal to every member, parents first."""
    for pid in tree(root):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@dataclass(frozen=True, slots=True)
class _Clocks:
    wall_s: float
    busy_s: float  # of all cores together, steal included
    steal_s: float
    own_s: float


class NoiseWatch:
    """How much of the machine other processes took between the watch's making and `noise`."""

    def __init__(self) -> None:
        self._begin = _clocks()

    def noise(self) -> dict[str, float]:
        """Shares of all cores' time, and the load average at the end. Our own tree does not count as others."""
        begin, end = self._begin, _clocks()
        cores_s = (end.wall_s - begin.wall_s) * (os.cpu_count() or 1)
        others_s = (end.busy_s - begin.busy_s) - (end.own_s - begin.own_s) - (end.steal_s - begin.steal_s)
        return {
            "others_cpu_share": round(max(0.0, others_s) / cores_s, 4),
            "steal_share": round((end.steal_s - begin.steal_s) / cores_s, 4),
            "load_average_1min": load_average()[0],
        }


def _clocks() -> _Clocks:
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(fields) - fields[_IDLE] - fields[_IOWAIT]
    return _Clocks(
        wall_s=time.perf_counter(),
        busy_s=busy / _TICKS_PER_S,
        steal_s=fields[_STEAL] / _TICKS_PER_S,
        own_s=tree_cpu_s(os.getpid()),
    )
