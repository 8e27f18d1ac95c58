"""How many threads the next step should take, from what the last ones got. Pure.

torch's threads spin at every barrier. As soon as another process wants one of the cores, each barrier waits for a time
slice, and a step takes twenty times as long (measured: 50 ms with one thread, 820 ms with two on a busy machine). Such
a step shows itself: threads that have their cores use threads · wall time of CPU time, spinning included; threads that
wait for a core use less. Then one thread is best, until the core is free again; that is tried now and then, ever more
rarely.
"""

_GRANTED_SHARE = 0.8  # of the CPU time that all threads could have used; less means that a core is taken
_MIN_WALL_S = 0.005  # shorter steps say nothing, as clocks tick too coarsely
_FIRST_PAUSE_STEPS = 32  # before the full number is tried again; a failed trial costs about as much as these
_MAX_PAUSE_STEPS = 4096


class ThreadGovernor:
    """Between one thread and all that the replica may have."""

    def __init__(self, max_threads: int) -> None:
        if max_threads < 1:
            raise ValueError(f"max_threads is {max_threads}; it must be at least 1")
        self._max_threads = max_threads
        self._pause_steps = _FIRST_PAUSE_STEPS
        self._paused_for = 0  # steps

    @property
    def num_threads(self) -> int:
        """Threads of the next step."""
        return 1 if self._paused_for else self._max_threads

    def record(self, *, wall_s: float, cpu_s: float) -> None:
        """Books a step that was run with `num_threads`: its duration, and CPU time of all threads together."""
        if self._max_threads == 1 or wall_s < _MIN_WALL_S:
            return
        if self._paused_for:
            self._paused_for -= 1
        elif cpu_s < _GRANTED_SHARE * self._max_threads * wall_s:
            self._paused_for = self._pause_steps
            self._pause_steps = min(2 * self._pause_steps, _MAX_PAUSE_STEPS)
        else:
            self._pause_steps = _FIRST_PAUSE_STEPS
