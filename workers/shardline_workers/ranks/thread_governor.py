"""How many threads the next step should take, one or all: whichever was measured to be faster. Pure.

More threads are not always faster. A small batch waits for memory, which one thread nearly uses up; and where another
process wants one of their cores, each operation may wait for a share of it that was begun there. (The threads of the
reference kernels meet at barriers besides, and collapse.) The other process may be the router or Redis, which serve
what the threads compute. So both ways are timed, for each size of step, from one step's end to the next one's: what a
step keeps others from doing between steps counts as well.

The way that is not in use is tried now and then, for a few steps. What trials lose against the way in use is about a
fortieth of the time at most, and ever less where they keep losing; where most of the last steps took longer than usual,
the other way is tried at once. So a core that is taken costs a few steps, and one that is free again is found within
seconds.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

_WEIGHT = 1 / 8  # of a new step in the usual time of the way in use
_FIRST_STEPS = 4  # of a size, before the first trial; the fastest counts, since the first touches memory
_TRIAL_S = 0.05  # of the way in use: a trial is about so long, one step at least, lest a burst elsewhere decides it
_MOST_TRIAL_STEPS = 3
_TRIAL_SHARE = 0.025  # of the time of all steps: what trials may lose
_MOST_PATIENCE = 4  # times rarer than that, after trials that all lost
_LONGEST_PAUSE_S = 4.0  # on one thread, whatever the last trial of all lost: a core may be free again
_LEAST_LOSS_S = 0.002  # a trial that wins nothing is not repeated all the time because it lost nothing
_SLOWER = 1.4  # times the usual time: where most of the last steps took longer, something has changed
_LAST_STEPS = 3
_HASTY_LOSS_S = (
    0.1  # what a trial for that reason may lose: long steps differ by their contexts, and stand taken cores well
)
# All threads have to take this share of one thread's time or less, or the other cores are better left to others …
_WORTHWHILE = 0.9
# … and lose their place only beyond this one, lest two ways that are as good as each other take turns.
_WORTHLESS = 0.94
_OUTLIER = 4  # times the usual: a longer step counts as so long, so that one that stood still decides nothing
_LONGEST_GAP_S = 0.005  # between two steps that follow each other; in a longer one there was nothing to compute
_SIZES_AN_OCTAVE = 4  # steps of these tokens are judged alike: 1, 2, …, 7, 8-9, 10-11, …, 16-19, …


@dataclass(slots=True)
class _Trial:
    """Some steps in the way that is not in use."""

    num_steps: int
    limit_s: float  # what the way in use takes for as many steps: beyond it the trial has lost
    num_done: int = 0
    total_s: float = 0.0

    def record(self, seconds: float) -> None:
        """Books a step."""
        self.num_done += 1
        self.total_s += seconds

    @property
    def is_over(self) -> bool:
        """Whether it is decided."""
        return self.num_done == self.num_steps or self.total_s > self.limit_s


class _Choice:
    """One thread or all, for steps of one size."""

    def __init__(self, max_threads: int, *, uses_all: bool) -> None:
        self.uses_all = uses_all
        self._max_threads = max_threads
        self._usual_s = float("inf")  # of the way in use
        self._num_steps = 0  # in the way in use
        self._last_s: deque[float] = deque(maxlen=_LAST_STEPS)  # in the way in use
        self._was_judged = False
        self._loss_s = 0.0  # of the last trial, which the next one is expected to lose as well
        self._credit_s = 0.0  # what trials may lose by now
        self._patience = 1
        self._trial: _Trial | None = None

    @property
    def was_judged(self) -> bool:
        """Whether both ways were measured."""
        return self._was_judged

    @property
    def num_threads(self) -> int:
        """Threads of the next step."""
        return self._max_threads if self.uses_all != (self._trial is not None) else 1

    def record(self, seconds: float) -> None:
        """Books a step that was run with `num_threads`."""
        if self._trial is None:
            self._book_usual(seconds)
            return
        self._trial.record(seconds)
        if self._trial.is_over:
            self._judge(self._trial)
            self._trial = None

    def _book_usual(self, seconds: float) -> None:
        self._num_steps += 1
        self._last_s.append(seconds)
        self._credit_s += _TRIAL_SHARE * seconds
        has_slowed_down = self._has_slowed_down()
        if has_slowed_down:
            self._usual_s = median(self._last_s)
            self._patience = 1
        elif self._num_steps <= _FIRST_STEPS:
            self._usual_s = min(self._usual_s, seconds)
        else:
            self._usual_s += _WEIGHT * (min(seconds, _OUTLIER * self._usual_s) - self._usual_s)
        if (has_slowed_down and self._first_loss_s() <= _HASTY_LOSS_S) or self._is_trial_due():
            num_steps = self._num_trial_steps()
            self._trial = _Trial(num_steps, limit_s=num_steps * self._usual_s / _WORTHWHILE)
            self._last_s.clear()

    def _has_slowed_down(self) -> bool:
        """On one thread there is nothing to flee from: others wait for it, not it for others."""
        is_known = self._num_steps > _FIRST_STEPS and len(self._last_s) == _LAST_STEPS
        return self.uses_all and is_known and median(self._last_s) > _SLOWER * self._usual_s

    def _num_trial_steps(self) -> int:
        return max(1, min(_MOST_TRIAL_STEPS, round(_TRIAL_S / self._usual_s)))

    def _is_trial_due(self) -> bool:
        if self._num_steps < _FIRST_STEPS:
            return False
        if not self._was_judged:
            return self._first_loss_s() <= max(_TRIAL_S, self._credit_s)
        most_s = float("inf") if self.uses_all else _TRIAL_SHARE * _LONGEST_PAUSE_S
        return self._credit_s >= min(self._patience * self._loss_s, most_s)

    def _first_loss_s(self) -> float:
        """What a trial loses at worst, where none has shown it: on one thread, all that the others do."""
        return self._num_trial_steps() * self._usual_s * (self._max_threads - 1) if self.uses_all else 0.0

    def _judge(self, trial: _Trial) -> None:
        tried_s = trial.total_s / trial.num_done
        ratio = self._usual_s / tried_s if self.uses_all else tried_s / self._usual_s  # all threads' time by one's
        self._credit_s = 0.0
        self._loss_s = max(_LEAST_LOSS_S, trial.num_done * abs(tried_s - self._usual_s))
        if ratio > _WORTHLESS if self.uses_all else ratio < _WORTHWHILE:
            self.uses_all = not self.uses_all
            self._usual_s = tried_s
            self._patience = 1
        else:
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._was_judged = True


class ThreadGovernor:
    """Between one thread and all that the replica may have. `num_threads` → step → `record`."""

    def __init__(self, max_threads: int) -> None:
        if max_threads < 1:
            raise ValueError(f"max_threads is {max_threads}; it must be at least 1")
        self._max_threads = max_threads
        self._choices: dict[int, _Choice] = {}
        self._last_end_s = float("-inf")  # of the last step

    def num_threads(self, num_tokens: int) -> int:
        """Threads of the next step, which computes so many tokens."""
        return self._choice(num_tokens).num_threads if self._max_threads > 1 else 1

    def record(self, num_tokens: int, *, num_threads: int, began_s: float, ended_s: float) -> None:
        """Books a step that was run with so many threads, with two instants of one clock.

        It counts from the end of the step before it, where that was just before. One that began before another way was
        chosen, as steps of a pipeline do, says nothing of that.
        """
        follows = began_s - self._last_end_s < _LONGEST_GAP_S
        seconds = ended_s - (self._last_end_s if follows else began_s)
        self._last_end_s = ended_s
        if num_threads == self.num_threads(num_tokens) and self._max_threads > 1:
            self._choice(num_tokens).record(seconds)

    def _choice(self, num_tokens: int) -> _Choice:
        size = _size(num_tokens)
        choice = self._choices.get(size)
        if choice is None:
            choice = self._choices[size] = _Choice(self._max_threads, uses_all=self._guess(size))
        return choice

    def _guess(self, size: int) -> bool:
        """What is best for steps of a size that was not tried yet: what is for the nearest one that was."""
        known = [other for other, choice in self._choices.items() if choice.was_judged]
        nearest = min(known, key=lambda other: abs(other - size), default=None)
        return True if nearest is None else self._choices[nearest].uses_all


def _size(num_tokens: int) -> int:
    """A number that steps of about the same size share; it rises with them."""
    octave = max(0, num_tokens.bit_length() - _SIZES_AN_OCTAVE.bit_length())
    return _SIZES_AN_OCTAVE * octave + (num_tokens >> octave)
