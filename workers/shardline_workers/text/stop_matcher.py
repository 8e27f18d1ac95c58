"""Finds stop strings in a text that comes in pieces, and holds back what may become one.

The match that is *complete* first wins, so that generation stops at once; of several that end at the same character
the longest wins. Both follow from the text alone, not from how it was cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopHit:
    """A stop string was found. `text_end`: characters of the sequence's whole text that count."""

    stop: str
    text_end: int


@dataclass(frozen=True, slots=True)
class StopProgress:
    """Text that is safe to deliver, and the hit, in the one piece that completed it."""

    text: str
    hit: StopHit | None = None


class StopMatcher:
    """Watches one sequence's text. `include_stop`: the stop string itself still counts as text.

    What was given out so far is a pure function of the text fed so far, however it was cut into calls.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool) -> None:
        if not all(stops):
            raise ValueError("a stop string is empty, but must have at least one character: leave it out")
        self._stops = tuple(dict.fromkeys(stops))
        self._include_stop = include_stop
        self._held = ""  # the longest end of the text that begins a stop string
        self._num_delivered = 0  # characters
        self._ended = False

    def feed(self, text: str, *, may_stop: bool = True) -> StopProgress:
        """Takes the next piece. After the hit, or after `flush`, text is dropped.

        Where the piece may not stop, a stop string that it completes is text like any other.
        """
        if self._ended:
            return StopProgress("")
        window = self._held + text
        found = self._first_complete(window, len(self._held)) if may_stop else None
        if found is None:
            self._held = self._begun_stop(window)
            return StopProgress(self._delivered(window[: len(window) - len(self._held)]))
        start, stop = found
        end = start + len(stop) if self._include_stop else start
        self._ended = True
        return StopProgress(self._delivered(window[:end]), StopHit(stop, self._num_delivered))

    def flush(self) -> str:
        """The text that was held back, at the end of a sequence that found no stop."""
        if self._ended:
            return ""
        self._ended = True
        return self._delivered(self._held)

    def _delivered(self, text: str) -> str:
        self._num_delivered += len(text)
        return text

    def _first_complete(self, window: str, num_old: int) -> tuple[int, str] | None:
        """Start and stop string of the match that ends first, the longest of those that end there.

        All end behind the first `num_old` characters: what those completed was none when they came.
        """
        firsts = [(max(0, num_old - len(stop) + 1), stop) for stop in self._stops]
        matches = [(start, stop) for first, stop in firsts if (start := window.find(stop, first)) >= 0]
        return min(matches, key=lambda match: (match[0] + len(match[1]), match[0]), default=None)

    def _begun_stop(self, window: str) -> str:
        """The longest end of `window` with which a stop string begins."""
        return max((_overlap(window, stop) for stop in self._stops), key=len, default="")


def _overlap(window: str, stop: str) -> str:
    """The longest end of `window` that is a proper beginning of `stop`."""
    start = window.find(stop[0], max(0, len(window) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(window[start:]):
            return window[start:]
        start = window.find(stop[0], start + 1)
    return ""
