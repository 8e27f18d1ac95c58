"""What an engine asks of those that compute its steps: one rank in this process, or a gang of them."""

from dataclasses import dataclass
from typing import Protocol

from shardline_workers.engine import ExpertLoads, StageTimes
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSteps:
    """One step of every data-parallel group, in their order. A group without chunks computes a dummy."""

    plans: tuple[StepPlan, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens that enter the model, all groups together."""
        return sum(plan.num_tokens for plan in self.plans)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedSteps:
    """What a step brought."""

    sampled: tuple[list[SampledToken], ...]  # by group, one for each row of logits in its plan's order
    wall_s: float  # from the moment it was alone in the first stage until its tokens were there
    stage_times: tuple[StageTimes, ...] = ()  # told since the step before, by the first rank of each stage
    expert_loads: tuple[ExpertLoads, ...] = ()  # told since the step before, by the leader and by ranks that choose


class StepExecutor(Protocol):
    """Computes steps in the order in which they are submitted. One thread calls it.

    What cannot be mended (a lost rank, numbers that are none in a probe) is raised by any call; the executor is of no
    use then.
    """

    @property
    def max_in_flight(self) -> int:
        """Steps that may be under way at once: as many as there are stages."""
        ...

    def submit(self, steps: GroupSteps, *, num_threads: int) -> None:
        """Begins a step. A sequence must not be in two steps at once."""
        ...

    def collect(self) -> ExecutedSteps:
        """Waits for the oldest step that was not collected yet."""
        ...

    def probe(self, num_tokens: int, *, num_threads: int) -> float:
        """Computes a few tokens that belong to nobody, on all ranks, with nothing under way; returns seconds.

        Raises:
            ProbeFailedError: the device computes nonsense.
        """
        ...

    def close(self) -> None:
        """Frees what it holds; ranks in other processes end, or wait for another model."""
        ...
