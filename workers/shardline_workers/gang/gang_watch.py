"""The end of a gang: the first sign of a lost rank ends all of them, and one error says which it was."""

import threading
from collections.abc import Callable

from shardline_workers.collectives.errors import RankLostError
from shardline_workers.gang.loss_verdict import LossSign, verdict

_GRACE_S = 0.2  # from the first sign to the verdict: that of the rank to blame may come a little later


class GangWatch:
    """Collects signs, from any thread. A gang that is lost cannot be mended."""

    def __init__(self, kill_all: Callable[[], None]) -> None:
        """Watches.

        Args:
            kill_all: ends all ranks of other processes, so that nobody waits for them any more.
        """
        self._kill_all = kill_all
        self._signs: list[LossSign] = []
        self._lock = threading.Lock()
        self._decided = threading.Event()
        self._failure: RankLostError | None = None

    def note(self, sign: LossSign) -> None:
        """A sign was seen."""
        with self._lock:
            self._signs.append(sign)
            is_first = len(self._signs) == 1
        if is_first:
            threading.Thread(target=self._end, name="gang end", daemon=True).start()

    def check(self) -> None:
        """Passes while no rank is lost.

        Raises:
            RankLostError: one is; the text says which, and how it ended.
        """
        if self._signs:
            self._decided.wait()
        if self._failure is not None:
            raise RankLostError(str(self._failure))

    def has_failed(self, within_s: float) -> bool:
        """Whether a rank is lost, or will be found so within so many seconds."""
        return self._decided.wait(within_s)

    def _end(self) -> None:
        self._decided.wait(_GRACE_S)
        with self._lock:
            self._failure = RankLostError(verdict(self._signs).text)
        self._kill_all()
        self._decided.set()
