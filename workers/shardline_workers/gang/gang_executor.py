"""Steps on many ranks: the leader tells all of them, computes rank 0's part itself, and collects what is chosen."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from shardline_workers.engine import StageTimes
from shardline_workers.gang.answer_encoding import decode_answer
from shardline_workers.gang.gang import Gang
from shardline_workers.gang.step_executor import ExecutedSteps, GroupSteps
from shardline_workers.gang.step_frames import Answer, ProbedAnswer, SampledAnswer
from shardline_workers.gang.step_loop import answers
from shardline_workers.gang.step_writer import StepWriter, check_drift
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.ranks.model_runner import ModelRunner, ProbeFailedError
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits

_ANSWER_POLL_S = 1.0  # between two looks whether a rank was lost, which closes its connection anyway

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    """A step that was submitted."""

    own: SampledAnswer  # rank 0's
    began_s: float


class GangExecutor:
    """Implements `StepExecutor`."""

    def __init__(
        self,
        gang: Gang,
        runner: ModelRunner,
        kernels: Kernels,
        *,
        plan: ParallelPlan,
        limits: SchedulerLimits,
        end: Callable[[], None],
    ) -> None:
        """Takes all parts.

        Args:
            gang: whose other ranks are ready for steps.
            runner: rank 0's.
            kernels: the runner's, closed with it.
            plan: the shape.
            limits: of the scheduler.
            end: called when all is closed.
        """
        self.max_in_flight = plan.pp
        self._gang = gang
        self._runner: ModelRunner | None = runner
        self._kernels = kernels
        self._end = end
        self._sender = gang.steps
        self._choosers = [plan.rank(stage=plan.pp - 1, group=group, place=0) for group in range(plan.dp)]
        self._firsts = [plan.rank(stage=stage, group=0, place=0) for stage in range(plan.pp)]
        answering = [rank for rank in range(1, plan.num_ranks) if answers(RankPosition.of(plan, rank))]
        self._receivers = {rank: gang.receiver(rank) for rank in answering}
        self._under_way: deque[_UnderWay] = deque()
        self._writer = StepWriter(limits, num_groups=plan.dp)

    def submit(self, steps: GroupSteps, *, num_threads: int) -> None:
        """See `StepExecutor.submit`. Returns when the first stage is free again."""
        assert len(self._under_way) < self.max_in_flight, "as many steps are under way as there are stages"
        self._guarded(lambda: self._submit(steps, num_threads=num_threads))

    def collect(self) -> ExecutedSteps:
        """See `StepExecutor.collect`."""
        assert self._under_way, "no step is under way"
        return self._guarded(self._collect)

    def probe(self, num_tokens: int, *, num_threads: int) -> float:
        """See `StepExecutor.probe`."""
        assert not self._under_way, "steps are under way"
        return self._guarded(lambda: self._probe(num_tokens, num_threads=num_threads))

    def close(self) -> None:
        """See `StepExecutor.close`."""
        if self._runner is None:
            return
        self._runner = None
        try:
            self._gang.close()
        finally:
            self._kernels.close()
            self._end()

    def _submit(self, steps: GroupSteps, *, num_threads: int) -> None:
        self._gang.check()
        began_s = time.perf_counter()
        self._sender.send(self._writer.step(steps.plans, num_threads=num_threads))
        number = self._writer.number
        if self._writer.checksums is not None:
            check_drift(self._open_runner.state_checksum(), self._writer.checksums[0], rank=0, number=number)
        sampled, times = self._open_runner.execute(steps.plans[0], num_threads=num_threads)
        own = SampledAnswer(
            number=number, sampled=sampled, busy_s=times.busy_s, expert_loads=self._open_runner.expert_loads()
        )
        self._under_way.append(_UnderWay(own=own, began_s=began_s))

    def _collect(self) -> ExecutedSteps:
        step = self._under_way.popleft()
        told = {0: step.own}
        for rank in self._receivers:
            answer = self._answer(rank)
            assert isinstance(answer, SampledAnswer) and answer.number == step.own.number, "ranks answer in order"
            told[rank] = answer
        wall_s = time.perf_counter() - step.began_s
        return ExecutedSteps(
            sampled=tuple([told[rank].sampled for rank in self._choosers]),
            wall_s=wall_s,
            stage_times=tuple([StageTimes(stage, told[rank].busy_s) for stage, rank in enumerate(self._firsts)]),
            expert_loads=tuple([answer.expert_loads for answer in told.values() if answer.expert_loads is not None]),
        )

    def _probe(self, num_tokens: int, *, num_threads: int) -> float:
        self._gang.check()
        began_s = time.perf_counter()
        self._sender.send(self._writer.probe(num_tokens, num_threads=num_threads))
        self._open_runner.probe(num_tokens, num_threads=num_threads)
        for rank in self._receivers:
            answer = self._answer(rank)
            assert isinstance(answer, ProbedAnswer) and answer.number == self._writer.number, "ranks answer in order"
            if answer.nonsense is not None:
                raise ProbeFailedError(answer.nonsense)
        return time.perf_counter() - began_s

    def _answer(self, rank: int) -> Answer:
        while True:
            try:
                return decode_answer(self._receivers[rank].receive(_ANSWER_POLL_S))
            except TimeoutError:
                self._gang.check()

    def _guarded(self, call: Callable[[], T]) -> T:
        """An error leaves ranks in the middle of a step, where nobody would free them; a failed probe does not."""
        assert self._runner is not None, "the engine was closed"
        try:
            return call()
        except ProbeFailedError:
            raise
        except Exception as error:
            raise self._gang.fail(error) from error

    @property
    def _open_runner(self) -> ModelRunner:
        assert self._runner is not None, "the engine was closed"
        return self._runner
