"""Our engine: a scheduler, and ranks that compute its steps, behind the `Engine` protocol."""

import time

from shardline_workers.engine import Capacity, EngineDescription, EngineRequest, StepResult
from shardline_workers.gang.step_executor import GroupSteps, StepExecutor
from shardline_workers.ranks.logit_adjustments import check_named_ids
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan
from shardline_workers.scheduling.step_times import StepTimes


class ShardedEngine:
    """Implements `Engine`. Built by `engine_loading.load_engine`."""

    def __init__(
        self,
        scheduler: Scheduler,
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
        """See `Engine.has_work`."""
        return self._scheduler.has_work()

    def expected_step_s(self) -> float:
        """See `Engine.expected_step_s`; from moving figures of steps of about the same size."""
        return self._step_times.expected_s(max(1, self._scheduler.num_next_tokens()))

    def step(self) -> StepResult:
        """See `Engine.step`.

        Raises:
            ProbeFailedError: there was no work, and the device computes nonsense.
        """
        if not self._scheduler.has_work():
            self.probe()
            return StepResult()
        began_s = time.perf_counter()
        plan = self._scheduler.schedule()
        sampled: list[SampledToken] = []
        if plan.chunks:
            sampled = self._execute(plan)
        steps = self._scheduler.complete(plan, sampled)
        if plan.chunks:
            self._threads.record(plan.num_tokens, began_s=began_s, ended_s=time.perf_counter())
        return StepResult(
            sequences=steps,
            num_prefill_tokens=plan.num_prefill_tokens,
            num_decode_tokens=plan.num_decode_tokens,
            num_preempted=len(plan.preempted),
            num_prefix_queries=plan.num_prefix_queries,
            num_prefix_hits=plan.num_prefix_hits,
            load=self._scheduler.load(),
        )

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

    def _execute(self, plan: StepPlan) -> list[SampledToken]:
        self._executor.submit(GroupSteps(plans=(plan,)), num_threads=self._threads.num_threads(plan.num_tokens))
        executed = self._executor.collect()
        self._step_times.record(plan.num_tokens, executed.wall_s)
        return executed.sampled[0]

    def _check_token_ids(self, request: EngineRequest) -> None:
        for token_ids in (request.prompt_ids, *(start.generated_ids for start in request.sequences)):
            for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
                if not 0 <= token_id < self._description.vocab_size:
                    raise ValueError(
                        f"token id {token_id} is outside of the model's vocabulary, 0 to"
                        f" {self._description.vocab_size - 1}; the prompt was made with another tokenizer"
                    )
