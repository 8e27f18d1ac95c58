"""How long each phase of a start took: what `serve` prints and writes down once it is ready. Phases may overlap."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SHORTEST_TOLD_S = 0.05  # rounds to 0.1


@dataclass(frozen=True, slots=True)
class StartPhase:
    """One phase; the name says what ran, and for a replica in which one."""

    name: str
    began_s: float  # after this process began
    took_s: float


class StartTimes:
    """Collects the phases of one start. Belongs to one thread."""

    def __init__(self, *, age_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins to count.

        Args:
            age_s: seconds since the process began: phases are told from there on.
            clock: monotonic, in seconds.
        """
        self._clock = clock
        self._origin_s = clock() - age_s
        self._phases: list[StartPhase] = []

    @property
    def now_s(self) -> float:
        """Seconds since the process began."""
        return self._clock() - self._origin_s

    @property
    def phases(self) -> tuple[StartPhase, ...]:
        """What has ended so far, in the order in which it began."""
        return tuple(sorted(self._phases, key=lambda phase: phase.began_s))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures what runs inside. What fails is no phase of a start."""
        began_s = self.now_s
        yield
        self.ended(name, began_s=began_s)

    def ended(self, name: str, *, began_s: float) -> None:
        """A phase that began at `began_s` ends now."""
        self.add(StartPhase(name, began_s, self.now_s - began_s))

    def add(self, phase: StartPhase) -> None:
        """A phase that somebody else has measured."""
        self._phases.append(phase)

    def line(self) -> str:
        """The whole start in one line for people, without what took no time worth a word."""
        told = [f"{phase.name} {phase.took_s:.1f} s" for phase in self.phases if phase.took_s >= SHORTEST_TOLD_S]
        phases = f", some of it at the same time: {', '.join(told)}" if told else ""
        return f"started in {self.now_s:.1f} s{phases}"


def process_age_s(root: Path = Path("/proc")) -> float:
    """Seconds since this process began, the loading of its modules included; 0 where the system does not tell.

    Args:
        root: where the system tells of processes.
    """
    try:
        fields = (root / "self/stat").read_text().rpartition(")")[2].split()
        uptime_s = float((root / "uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return max(0.0, uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
