"""Runs our engine greedily and keeps the logits from which it chose."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from shardline_workers.engine import EngineRequest, ExpertLoads, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.gang.one_rank_executor import OneRankExecutor
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.ranks.model_runner import ModelRunner
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan
from shardline_workers.sharded_engine import ShardedEngine


@dataclass
class GreedyRun:
    """One prompt's way through the engine."""

    prompt_ids: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)  # [vocab] for each token


class _RecordingRunner:
    """A model runner whose logits are kept."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.key_to_logits: dict[SequenceKey, list[Tensor]] = {}

    def execute(self, plan: StepPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        sampled, times = self._runner.execute(plan, num_threads=num_threads)
        rows = [chunk.key for chunk in plan.chunks if chunk.samples]
        for row, key in enumerate(rows):
            self.key_to_logits.setdefault(key, []).append(self._runner.logits[row].clone())
        return sampled, times

    def expert_loads(self) -> ExpertLoads | None:
        return self._runner.expert_loads()


def run_greedily(config: EngineConfig, prompts: list[tuple[int, ...]], num_tokens: int) -> list[GreedyRun]:
    """All prompts at once, so many tokens each."""
    engine = load_engine(config, report=lambda _: None)
    recorder = _record(engine)
    runs = [GreedyRun(prompt) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        sampling = Sampling(temperature=0.0, max_tokens=num_tokens)
        engine.add(EngineRequest(request_id=str(number), prompt_ids=prompt, sampling=sampling))
    while engine.has_work():
        for step in engine.step().sequences:
            runs[int(step.request_id)].token_ids.extend(step.token_ids)
    engine.check_integrity()
    engine.close()
    for number, run in enumerate(runs):
        run.logits = recorder.key_to_logits[SequenceKey(str(number), 0)]
    return runs


def _record(engine: ShardedEngine) -> _RecordingRunner:
    executor = engine._executor
    assert isinstance(executor, OneRankExecutor) and executor._runner is not None
    recorder = _RecordingRunner(executor._runner)
    executor._runner = recorder  # type: ignore[assignment]
    return recorder


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a run stands beside the reference's logits for the very tokens that it chose."""

    largest_difference: float
    ties: tuple[int, ...]  # steps at which the reference's two likeliest tokens are too close to tell


def compare(run: GreedyRun, reference: Tensor, *, tie: float) -> Comparison:
    """Checks every choice of a run, by the tie rule.

    The reference saw prompt and our tokens. As long as they agree, these are its own greedy tokens; at the first
    difference its two likeliest logits must lie closer than `tie`, and after it, it was forced past the difference.

    Args:
        run: of our engine.
        reference: [num_tokens, vocab], logits before each of the run's tokens.
        tie: in logits.
    """
    ours = torch.stack(run.logits).to(reference.dtype)
    assert ours.shape == reference.shape
    ties = []
    for step, (token_id, logits) in enumerate(zip(run.token_ids, reference, strict=True)):
        assert token_id == int(run.logits[step].argmax()), f"step {step}: the engine did not choose its likeliest token"
        best, second = logits.topk(2)[0].tolist()
        if token_id != int(logits.argmax()):
            assert best - second < tie, f"step {step}: {token_id} for {int(logits.argmax())}, {best - second} apart"
            ties.append(step)
    return Comparison(float((ours - reference).abs().max()), tuple(ties))
