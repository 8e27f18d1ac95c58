"""The only rank there is, in this process."""

from shardline_workers.engine import StageTimes
from shardline_workers.gang.step_executor import ExecutedSteps, GroupSteps
from shardline_workers.kernels.kernels import Kernels
from shardline_workers.ranks.model_runner import ModelRunner


class OneRankExecutor:
    """Implements `StepExecutor`: a step is computed when it is submitted."""

    max_in_flight = 1

    def __init__(self, runner: ModelRunner, kernels: Kernels) -> None:
        self._runner: ModelRunner | None = runner
        self._kernels = kernels
        self._executed: ExecutedSteps | None = None

    def submit(self, steps: GroupSteps, *, num_threads: int) -> None:
        """See `StepExecutor.submit`."""
        assert self._executed is None, "the step before was not collected"
        (plan,) = steps.plans
        sampled, times = self._open_runner.execute(plan, num_threads=num_threads)
        alone = StageTimes(stage=0, busy_s=times.wall_s)
        loads = self._open_runner.expert_loads()
        self._executed = ExecutedSteps(
            sampled=(sampled,),
            wall_s=times.wall_s,
            stage_times=(alone,),
            expert_loads=() if loads is None else (loads,),
        )

    def collect(self) -> ExecutedSteps:
        """See `StepExecutor.collect`."""
        executed, self._executed = self._executed, None
        assert executed is not None, "no step is under way"
        return executed

    def probe(self, num_tokens: int, *, num_threads: int) -> float:
        """See `StepExecutor.probe`."""
        return self._open_runner.probe(num_tokens, num_threads=num_threads).wall_s

    def close(self) -> None:
        """See `StepExecutor.close`."""
        self._runner = None
        self._kernels.close()

    @property
    def _open_runner(self) -> ModelRunner:
        assert self._runner is not None, "the engine was closed"
        return self._runner
