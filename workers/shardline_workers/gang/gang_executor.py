"""Steps on many ranks: the leader tells all of them, computes rank 0's part itself, and collects what is chosen."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from shardline_workers.collectives.errors import CommunicatorError
from shardline_workers.engine import ExpertLoads
from shardline_workers.gang.answer_encoding import decode_answer
from shardline_workers.gang.gang import Gang
from shardline_workers.gang.step_channel import StepChannelError
from shardline_workers.gang.step_executor import ExecutedSteps, GroupSteps
from shardline_workers.gang.step_frames import Answer, ProbedAnswer, SampledAnswer
from shardline_workers.gang.step_writer import StepWriter, check_drift
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.ranks.model_runner import ModelRunner, ProbeFailedError
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken

_ANSWER_POLL_S = 1.0  # between two looks whether a rank was lost, which closes its connection anyway

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    """A step that was submitted."""

    number: int
    began_s: float
    sampled: list[SampledToken]  # rank 0's, where it chooses
    expert_loads: ExpertLoads | None  # rank 0's, where it tells them


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
        choosers = [plan.rank(stage=plan.pp - 1, group=group, place=0) for group in range(plan.dp)]
        self._receivers = [gang.receiver(rank) if rank else None for rank in choosers]  # None: rank 0 itself
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
        sampled, _ = self._open_runner.execute(steps.plans[0], num_threads=num_threads)
        loads = self._open_runner.expert_loads()
        step = _UnderWay(number=number, began_s=began_s, sampled=sampled, expert_loads=loads)
        self._under_way.append(step)

    def _collect(self) -> ExecutedSteps:
        step = self._under_way.popleft()
        own = SampledAnswer(number=step.number, sampled=step.sampled, wall_s=0.0, expert_loads=step.expert_loads)
        answers = [own if group is None else self._sampled(group, step) for group in self._groups()]
        told = {id(answer): answer.expert_loads for answer in (own, *answers)}
        return ExecutedSteps(
            sampled=tuple(answer.sampled for answer in answers),
            wall_s=time.perf_counter() - step.began_s,
            expert_loads=tuple(loads for loads in told.values() if loads is not None),
        )

    def _groups(self) -> list[int | None]:
        return [None if receiver is None else group for group, receiver in enumerate(self._receivers)]

    def _sampled(self, group: int, step: _UnderWay) -> SampledAnswer:
        answer = self._answer(group)
        assert isinstance(answer, SampledAnswer) and answer.number == step.number, f"ranks answer in order: {answer}"
        return answer

    def _probe(self, num_tokens: int, *, num_threads: int) -> float:
        self._gang.check()
        began_s = time.perf_counter()
        self._sender.send(self._writer.probe(num_tokens, num_threads=num_threads))
        self._open_runner.probe(num_tokens, num_threads=num_threads)
        for group in self._groups():
            if group is not None:
                answer = self._answer(group)
                assert isinstance(answer, ProbedAnswer) and answer.number == self._writer.number, (
                    "ranks answer in order"
                )
                if answer.nonsense is not None:
                    raise ProbeFailedError(answer.nonsense)
        return time.perf_counter() - began_s

    def _answer(self, group: int) -> Answer:
        receiver = self._receivers[group]
        assert receiver is not None, "another rank chooses this group's tokens"
        while True:
            try:
                return decode_answer(receiver.receive(_ANSWER_POLL_S))
            except TimeoutError:
                self._gang.check()

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (CommunicatorError, StepChannelError) as error:
            raise self._gang.explain(error) from error

    @property
    def _open_runner(self) -> ModelRunner:
        assert self._runner is not None, "the engine was closed"
        return self._runner
