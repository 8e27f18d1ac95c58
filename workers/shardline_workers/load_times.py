"""How long each phase of loading a model took, for whoever started it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class LoadTimes:
    """Seconds by phase. One thread at a time measures."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        """By the name of the phase, in the order in which they ended; rounded to milliseconds."""
        return {name: round(took_s, 3) for name, took_s in self._seconds.items()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures what runs inside; a phase that comes again adds up."""
        began_s = self._clock()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - began_s
