"""Tells when a step takes too long to be believed in: a wedged device must not keep its leases."""

STEP_LIMIT_FACTOR = 20  # × the time that the engine expects


class ProgressWatch:
    """Time limit of the step in progress. The step thread begins it, the event loop ends it.

    Each writes its own field only, so that neither undoes what the other does at the same moment.
    """

    def __init__(self, *, least_limit_s: float) -> None:
        self.least_limit_s = least_limit_s
        self._limit_s = least_limit_s
        self._begun = (0, 0.0)  # number of the last step that began, and when
        self._num_ended = 0  # the last step that is known to be over

    def begin(self, now: float, *, step: int) -> None:
        """The step of this number, counted from 1, begins."""
        self._limit_s = self.least_limit_s
        self._begun = (step, now)

    def expect(self, seconds: float) -> None:
        """The step in progress should take so long."""
        self._limit_s = max(self._limit_s, STEP_LIMIT_FACTOR * seconds)

    def end(self, step: int) -> None:
        """The step of this number is over; the next one may have begun before that is known."""
        self._num_ended = step

    @property
    def limit_s(self) -> float:
        """Limit of the last step that began, in seconds."""
        return self._limit_s

    def deadline(self) -> float | None:
        """Instant by which the step in progress must be over; None between steps."""
        step, began = self._begun
        return began + self._limit_s if step > self._num_ended else None
