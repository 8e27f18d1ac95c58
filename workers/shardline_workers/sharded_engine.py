"""Our engine: schedulers, and ranks that compute their steps, behind the `Engine` protocol.

A pipeline has a step under way in each stage. A turn of the engine begins as many as there is something to compute for,
then waits for the oldest and books it:

    turn 1   begin A   begin B   ─ wait for A ─ book A
    turn 2             begin C   ─ wait for B ─ book B
    turn 3             begin D   ─ wait for C ─ book C

What there is nothing for is not waited for: one sequence alone is one step after the other.
"""

import time
from collections import deque
from dataclasses import dataclass

from shardline_workers.engine import Capacity, EngineDescription, EngineRequest, StepResult
from shardline_workers.gang.step_executor import GroupSteps, StepExecutor
from shardline_workers.ranks.logit_adjustments import check_named_ids
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler_groups import SchedulerGroups
from shardline_workers.scheduling.step_tally import StepTally
from shardline_workers.scheduling.step_times import StepTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A step that is under way."""

    steps: GroupSteps
    num_threads: int
    began_s: float


class ShardedEngine:
    """Implements `Engine`. Built by `engine_loading.load_engine`."""

    def __init__(
        self,
        scheduler: SchedulerGroups,
        executor: StepExecutor,
        *,
        description: EngineDescription,
        threads: ThreadGovernor,
        max_logprobs: int,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._description = description
        self._threads = threads
        self._max_logprobs = max_logprobs
        self._step_times = StepTimes()
        self._under_way: deque[_Begun] = deque()
        self._last_told_s = 0.0  # when a step came back, or began while none was under way

    @property
    def description(self) -> EngineDescription:
        """See `Engine.description`."""
        return self._description

    def capacity(self) -> Capacity:
        """See `Engine.capacity`."""
        return self._scheduler.capacity()

    def add(self, request: EngineRequest) -> None:
        """See `Engine.add`.

        Raises:
            RequestTooLargeError: prompt and output never fit.
            ValueError: the request makes no sense here: a token id beyond the vocabulary, an empty prompt, a request id
                that is here already, more log-probabilities than the engine tells, too many biased or forbidden tokens.
        """
        self._check_token_ids(request)
        check_named_ids(request.sampling, vocab_size=self._description.vocab_size)
        for name in ("num_logprobs", "num_prompt_logprobs"):
            number = getattr(request.sampling, name)
            if number is not None and not 0 <= number <= self._max_logprobs:
                raise ValueError(f"{name} is {number}; it must be between 0 and {self._max_logprobs}")
        self._scheduler.add(request)

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        """See `Engine.stop_sequence`."""
        self._scheduler.stop_sequence(request_id, sequence)

    def cancel(self, request_id: str) -> None:
        """See `Engine.cancel`."""
        self._scheduler.cancel(request_id)

    def has_work(self) -> bool:
        """See `Engine.has_work`; steps whose every sequence was dropped meanwhile are waited for, too."""
        return self._scheduler.has_work() or bool(self._under_way)

    def expected_step_s(self) -> float:
        """See `Engine.expected_step_s`: until the oldest is back, by moving figures of steps of about the same size."""
        expected_s = 0.0
        if self._under_way:
            expected_s += self._step_times.expected_s(self._under_way[0].steps.num_tokens)
        if len(self._under_way) < self._executor.max_in_flight:
            expected_s += self._step_times.expected_s(max(1, self._scheduler.num_next_tokens()))
        return expected_s

    def step(self) -> StepResult:
        """See `Engine.step`.

        Raises:
            ProbeFailedError: there was no work, and the device computes nonsense.
        """
        if not self.has_work():
            self.probe()
            return StepResult()
        tally = StepTally()
        while len(self._under_way) < self._executor.max_in_flight and self._begin(tally):
            pass
        if self._under_way:
            self._end_oldest(tally)
        return tally.result(self._scheduler.load())

    def probe(self, num_tokens: int = 1) -> None:
        """Computes a step of so many tokens that belong to nobody, at most a block. Only while there is no work.

        Raises:
            ProbeFailedError: the device computes nonsense.
        """
        wall_s = self._executor.probe(num_tokens, num_threads=self._threads.num_threads(num_tokens))
        self._step_times.record(num_tokens, wall_s)

    def warm_up(self) -> None:
        """Computes a few probes. Each size twice: the first touches memory, the second tells how long it takes."""
        limits = self._scheduler.limits
        num_tokens = min(limits.block_size, limits.max_num_batched_tokens, limits.max_model_len)
        for size in (1, num_tokens, num_tokens, 1):
            self.probe(size)

    def check_integrity(self) -> None:
        """See `Engine.check_integrity`."""
        self._scheduler.check_integrity()

    def close(self) -> None:
        """See `Engine.close`."""
        self._executor.close()

    def _begin(self, tally: StepTally) -> bool:
        """Begins the next step; False where there is none, for everything that could be computed is under way."""
        began_s = time.perf_counter()
        steps = GroupSteps(plans=self._scheduler.schedule())
        tally.planned(steps.plans)
        if not steps.num_tokens:
            tally.told(self._scheduler.complete(steps.plans, [()] * len(steps.plans)))
            return False
        num_threads = self._threads.num_threads(steps.num_tokens)
        if not self._under_way:
            self._last_told_s = began_s
        self._under_way.append(_Begun(steps=steps, num_threads=num_threads, began_s=began_s))
        self._executor.submit(steps, num_threads=num_threads)
        return True

    def _end_oldest(self, tally: StepTally) -> None:
        executed = self._executor.collect()
        begun = self._under_way.popleft()
        plans, num_tokens = begun.steps.plans, begun.steps.num_tokens
        tally.told(self._scheduler.complete(plans, executed.sampled))
        now_s = time.perf_counter()
        self._step_times.record(num_tokens, executed.wall_s)
        self._threads.record(num_tokens, num_threads=begun.num_threads, began_s=begun.began_s, ended_s=now_s)
        tally.ended(plans, active_s=now_s - self._last_told_s, stage_times=executed.stage_times)
        tally.experts_took(executed.expert_loads)
        self._last_told_s = now_s

    def _check_token_ids(self, request: EngineRequest) -> None:
        for token_ids in (request.prompt_ids, *(start.generated_ids for start in request.sequences)):
            for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
                if not 0 <= token_id < self._description.vocab_size:
                    raise ValueError(
                        f"token id {token_id} is outside of the model's vocabulary, 0 to"
                        f" {self._description.vocab_size - 1}; the prompt was made with another tokenizer"
                    )
