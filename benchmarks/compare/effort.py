"""How long each measurement is made to last. Pure."""

from dataclasses import dataclass
from typing import Final

from benchmarks.compare.points import Point, Work

_LLAMA_REPETITIONS: Final = {
    Point(Work.DECODE, 1): 5,
    Point(Work.DECODE, 4): 2,
    Point(Work.PREFILL, 512): 3,
}
_STREAM_LAPS: Final = {1: 4, 4: 2}


@dataclass(frozen=True, slots=True)
class Effort:
    """One round of everything takes some minutes; a quick one, for a look whether everything works, one or two."""

    is_quick: bool

    @property
    def least_s(self) -> float:
        """Our engine repeats a point until it took so long."""
        return 0.2 if self.is_quick else 1.5

    def llama_repetitions(self, point: Point) -> int:
        """What llama.cpp's tools repeat, so that they take about as long or longer."""
        return 1 if self.is_quick else _LLAMA_REPETITIONS.get(point, 1)

    def stream_laps(self, point: Point) -> int:
        """How often so many streams are sent, one group after the other."""
        return 1 if self.is_quick else _STREAM_LAPS.get(point.size, 1)
