"""What a turn of the engine brings, as its pieces come in: plans of steps that begin, answers of the step that ends."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from shardline_workers.engine import EngineLoad, ExpertLoads, SequenceStep, StageTimes, StepResult
from shardline_workers.scheduling.step_plan import StepPlan


class StepTally:
    """Of one turn. Preempted sequences and the prefix cache are told when a step begins, its tokens when it ends."""

    def __init__(self) -> None:
        self._steps: list[SequenceStep] = []
        self._begun: list[StepPlan] = []
        self._ended: Sequence[StepPlan] = ()
        self._active_s = 0.0
        self._stage_times: tuple[StageTimes, ...] = ()
        self._expert_loads: ExpertLoads | None = None

    def planned(self, plans: Sequence[StepPlan]) -> None:
        """A step was planned, one plan for each group."""
        self._begun.extend(plans)

    def told(self, steps: Sequence[SequenceStep]) -> None:
        """These are to be told."""
        self._steps.extend(steps)

    def ended(self, plans: Sequence[StepPlan], *, active_s: float, stage_times: tuple[StageTimes, ...]) -> None:
        """A step came back, after so much time in which something was under way."""
        self._ended, self._active_s, self._stage_times = plans, active_s, stage_times

    def experts_took(self, loads: Sequence[ExpertLoads]) -> None:
        """Ranks told what their experts took."""
        self._expert_loads = reduce(add, loads) if loads else None

    def result(self, load: EngineLoad) -> StepResult:
        """All of it, with what the engine holds now."""
        return StepResult(
            sequences=tuple(self._steps),
            num_prefill_tokens=sum(plan.num_prefill_tokens for plan in self._ended),
            num_decode_tokens=sum(plan.num_decode_tokens for plan in self._ended),
            num_preempted=sum(len(plan.preempted) for plan in self._begun),
            num_prefix_queries=sum(plan.num_prefix_queries for plan in self._begun),
            num_prefix_hits=sum(plan.num_prefix_hits for plan in self._begun),
            load=load,
            active_s=self._active_s,
            stage_times=self._stage_times,
            expert_loads=self._expert_loads,
        )
