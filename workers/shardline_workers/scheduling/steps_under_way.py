"""Steps that were planned and are not complete: which sequences are in them. Pure bookkeeping."""

from collections import Counter, deque
from collections.abc import Iterable

from shardline_workers.scheduling.request import SequenceState
from shardline_workers.scheduling.step_plan import StepPlan


class StepsUnderWay:
    """In the order of their plans, which is the order in which they are complete. Plans without chunks are none."""

    def __init__(self) -> None:
        self._plans: deque[StepPlan] = deque()
        self._num_begun = 0

    def begin(self, plan: StepPlan, running: Iterable[SequenceState]) -> None:
        """A plan was made; `running` are all that run."""
        if not plan.chunks:
            return
        self._num_begun += 1
        self._plans.append(plan)
        for state in _members(plan, running):
            state.is_under_way = True
            state.last_planned = self._num_begun

    def end(self, plan: StepPlan, running: Iterable[SequenceState]) -> None:
        """The oldest plan is complete."""
        if not plan.chunks:
            return
        assert self._plans and self._plans[0] is plan, "steps are complete in the order of their plans"
        self._plans.popleft()
        for state in _members(plan, running):
            state.is_under_way = False

    def check_integrity(self, alive: Iterable[SequenceState]) -> None:
        """Raises AssertionError where a sequence is in two steps, or its mark is wrong."""
        counts = Counter(chunk.arrival for plan in self._plans for chunk in plan.chunks)
        for arrival, count in counts.items():
            assert count == 1, f"the sequence that arrived as number {arrival} is in {count} steps at once"
        for state in alive:
            assert state.is_under_way == (state.arrival in counts), f"{state.key} is marked wrongly as under way"


def _members(plan: StepPlan, running: Iterable[SequenceState]) -> Iterable[SequenceState]:
    arrivals = {chunk.arrival for chunk in plan.chunks}
    return (state for state in running if state.arrival in arrivals)
