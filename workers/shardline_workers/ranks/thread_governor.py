"""How many threads the next step should take, from what the last ones got. Pure.

Threads that meet at barriers collapse as soon as another process wants one of their cores: each barrier then waits for
a time slice (measured: torch's 820 ms a step instead of 50, our own pool's 18 instead of 4). Such steps show
themselves: threads that have their cores use threads · wall time of CPU time, spinning included; threads that wait for
a core use less. Then one thread is best, until the core is free again; that is tried now and then, ever more rarely.
"""

_GRANTED_SHARE = 0.8  # of the CPU time that all threads could have used; less means that a core is taken
_WINDOW_S = 0.02  # of steps that are judged together: clocks tick too coarsely for less
_FIRST_PAUSE_S = 1.0  # before the full number is tried again; a trial that fails costs a window
_MAX_PAUSE_S = 60.0


class ThreadGovernor:
    """Between one thread and all that the replica may have."""

    def __init__(self, max_threads: int) -> None:
        if max_threads < 1:
            raise ValueError(f"max_threads is {max_threads}; it must be at least 1")
        self._max_threads = max_threads
        self._next_pause_s = _FIRST_PAUSE_S
        self._pause_left_s = 0.0
        self._window_s = self._window_cpu_s = 0.0

    @property
    def num_threads(self) -> int:
        """Threads of the next step."""
        return 1 if self._pause_left_s > 0 else self._max_threads

    def record(self, *, wall_s: float, cpu_s: float) -> None:
        """Books a step that was run with `num_threads`: its duration, and CPU time of all threads together."""
        if self._max_threads == 1:
            return
        if self._pause_left_s > 0:
            self._pause_left_s -= wall_s
            return
        self._window_s += wall_s
        self._window_cpu_s += cpu_s
        if self._window_s >= _WINDOW_S:
            self._judge(self._window_cpu_s / (self._max_threads * self._window_s))
            self._window_s = self._window_cpu_s = 0.0

    def _judge(self, granted_share: float) -> None:
        if granted_share < _GRANTED_SHARE:
            self._pause_left_s = self._next_pause_s
            self._next_pause_s = min(2 * self._next_pause_s, _MAX_PAUSE_S)
        else:
            self._next_pause_s = _FIRST_PAUSE_S
