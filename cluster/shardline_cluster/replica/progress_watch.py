"""Tells when a step takes too long to be believed in: a wedged device must not keep its leases."""

STEP_LIMIT_FACTOR = 20  # × the time that the engine expects


class ProgressWatch:
    """Time limit of the step in progress. The step thread begins it, the event loop ends it."""

    def __init__(self, *, least_limit_s: float) -> None:
        self.least_limit_s = least_limit_s
        self._began: float | None = None
        self._limit_s = least_limit_s
        self._step: int | None = None

    def begin(self, now: float, *, step: int) -> None:
        """The step of this number begins."""
        self._limit_s = self.least_limit_s
        self._began = now
        self._step = step

    def expect(self, seconds: float) -> None:
        """The step in progress should take so long."""
        self._limit_s = max(self._limit_s, STEP_LIMIT_FACTOR * seconds)

    def end(self, step: int) -> None:
        """The step of this number is over; the next one may have begun before that is known."""
        if self._step == step:
            self._began = None

    @property
    def limit_s(self) -> float:
        """Limit of the last step that began, in seconds."""
        return self._limit_s

    def deadline(self) -> float | None:
        """Instant by which the step in progress must be over; None between steps."""
        return None if self._began is None else self._began + self._limit_s
