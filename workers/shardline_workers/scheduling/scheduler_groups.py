"""The schedulers of an engine's data-parallel groups as one: which group takes a request, and what all of them do next.

A request stays in one group, for its sequences share blocks there and only there. Groups step together; whichever has
nothing to compute gets a plan without chunks.
"""

from collections.abc import Sequence

from shardline_workers.engine import Capacity, EngineLoad, EngineRequest, SequenceStep
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan


class SchedulerGroups:
    """One scheduler for each group, all with the same limits. One group is as good as its scheduler."""

    def __init__(self, limits: SchedulerLimits, *, num_groups: int) -> None:
        """`limits`: of each group."""
        self.limits = limits
        self._schedulers = tuple(Scheduler(limits) for _ in range(num_groups))
        self._homes: dict[str, Scheduler] = {}  # by request

    def add(self, request: EngineRequest) -> None:
        """Takes a request over, into the group that has most room.

        Raises:
            RequestTooLargeError: prompt and output never fit.
            ValueError: the request is known already, has no prompt, or may generate nothing.
        """
        home = self._homes.get(request.request_id) or self._roomiest(request)
        home.add(request)
        if home.knows(request.request_id):
            self._homes[request.request_id] = home

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        """Ends one sequence and frees what it has. Unknown ones are ignored."""
        if (home := self._homes.get(request_id)) is not None:
            home.stop_sequence(request_id, sequence)
            self._forget_ended(request_id)

    def cancel(self, request_id: str) -> None:
        """Ends all sequences of a request. Unknown ones are ignored."""
        if (home := self._homes.get(request_id)) is not None:
            home.cancel(request_id)
            self._forget_ended(request_id)

    def has_work(self) -> bool:
        """Whether a step would do something, now or when those that are under way are complete."""
        return any(scheduler.has_work() for scheduler in self._schedulers)

    def capacity(self) -> Capacity:
        """Room in the one group that has most: what is promised there can be kept.

        Requests that fit there together fit wherever `add` puts them, for it takes another group only where that has
        even more room.
        """
        return max((scheduler.capacity() for scheduler in self._schedulers), key=_room)

    def load(self) -> EngineLoad:
        """What is held now, in all groups together."""
        loads = [scheduler.load() for scheduler in self._schedulers]
        return EngineLoad(
            num_running=sum(load.num_running for load in loads),
            num_waiting=sum(load.num_waiting for load in loads),
            kv_cache_usage=sum(load.kv_cache_usage for load in loads) / len(loads),
        )

    def num_next_tokens(self) -> int:
        """About how many tokens the next step will hold, in the group with most: groups compute side by side."""
        return max(scheduler.num_next_tokens() for scheduler in self._schedulers)

    def schedule(self) -> tuple[StepPlan, ...]:
        """The next step of each group; nothing is to be computed where none of them has chunks."""
        return tuple(scheduler.schedule() for scheduler in self._schedulers)

    def complete(
        self, plans: Sequence[StepPlan], sampled: Sequence[Sequence[SampledToken]]
    ) -> tuple[SequenceStep, ...]:
        """Books what a step computed.

        Args:
            plans: come from `schedule`; the oldest that are under way.
            sampled: by group, one for each row of logits in its plan's order.
        """
        groups = zip(self._schedulers, plans, sampled, strict=True)
        steps = tuple(step for scheduler, plan, rows in groups for step in scheduler.complete(plan, rows))
        for step in steps:
            if step.finish is not None or step.error is not None:
                self._forget_ended(step.request_id)
        return steps

    def check_integrity(self) -> None:
        """Raises AssertionError where the books do not add up."""
        for scheduler in self._schedulers:
            scheduler.check_integrity()
        for request_id, home in self._homes.items():
            assert home.knows(request_id), f"request {request_id!r} has ended and is still remembered"

    def _roomiest(self, request: EngineRequest) -> Scheduler:
        """The group that has most room afterwards; tokens that it has cached are room besides."""
        if len(self._schedulers) == 1:
            return self._schedulers[0]
        open_ones = [start for start in request.sequences if not start.finished]
        num_tokens = len(request.prompt_ids) + sum(len(start.generated_ids) + 1 for start in open_ones)

        def room(scheduler: Scheduler) -> tuple[bool, int, int]:
            capacity, load = scheduler.capacity(), scheduler.load()
            fits = capacity.free_slots >= len(open_ones) and capacity.free_tokens >= num_tokens
            free_tokens = capacity.free_tokens + (scheduler.num_cached_tokens(request) if fits else 0)
            return fits, free_tokens, -(load.num_running + load.num_waiting)

        return max(self._schedulers, key=room)

    def _forget_ended(self, request_id: str) -> None:
        home = self._homes.get(request_id)
        if home is not None and not home.knows(request_id):
            del self._homes[request_id]


def _room(capacity: Capacity) -> tuple[bool, int, int]:
    """Room that is only tokens, or only slots, is none."""
    return min(capacity.free_slots, capacity.free_tokens) > 0, capacity.free_tokens, capacity.free_slots
