"""How an engine keeps steps under way, with an executor that computes nothing and writes down what it is asked for."""

from collections import deque

import pytest

from shardline_workers.engine import EngineDescription, EngineRequest, Sampling, SequenceStart, StageTimes
from shardline_workers.gang.step_executor import ExecutedSteps, GroupSteps
from shardline_workers.ranks.thread_governor import ThreadGovernor
from shardline_workers.scheduling.scheduler_groups import SchedulerGroups
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan
from shardline_workers.sharded_engine import ShardedEngine


class WritingExecutor:
    """Implements `StepExecutor`. Each chosen token is 7."""

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.calls: list[str] = []
        self._under_way: deque[GroupSteps] = deque()

    def submit(self, steps: GroupSteps, *, num_threads: int) -> None:
        self._under_way.append(steps)
        assert len(self._under_way) <= self.max_in_flight
        self.calls.append(f"begin {self._named(steps)}")

    def collect(self) -> ExecutedSteps:
        steps = self._under_way.popleft()
        self.calls.append(f"end {self._named(steps)}")
        sampled = tuple([SampledToken(token_id=7) for c in plan.chunks if c.samples] for plan in steps.plans)
        return ExecutedSteps(sampled=sampled, wall_s=0.25, stage_times=(StageTimes(0, 0.125),))

    def probe(self, num_tokens: int, *, num_threads: int) -> float:
        assert not self._under_way, "a probe is alone"
        self.calls.append("probe")
        return 0.25

    def close(self) -> None:
        self.calls.append("close")

    def _named(self, steps: GroupSteps) -> str:
        return "|".join(_names(plan) for plan in steps.plans)


def _names(plan: StepPlan) -> str:
    return "".join(chunk.key.request_id for chunk in plan.chunks)


def an_engine(*, stages: int, groups: int = 1) -> tuple[ShardedEngine, WritingExecutor]:
    limits = SchedulerLimits(
        max_model_len=64, max_num_seqs=8, max_num_batched_tokens=32, num_blocks=64, block_size=4, max_in_flight=stages
    )
    executor = WritingExecutor(stages)
    description = EngineDescription(
        numerics_id="none", max_model_len=64, max_num_seqs=8, kv_cache_tokens=256, vocab_size=100
    )
    engine = ShardedEngine(
        SchedulerGroups(limits, num_groups=groups),
        executor,
        description=description,
        threads=ThreadGovernor(1),
        max_logprobs=0,
    )
    return engine, executor


def add(engine: ShardedEngine, names: str, *, max_tokens: int = 9) -> None:
    for name in names:
        engine.add(
            EngineRequest(
                request_id=name,
                prompt_ids=(ord(name) - 32,) * 3,
                sampling=Sampling(max_tokens=max_tokens),
                sequences=(SequenceStart(),),
            )
        )


def told(engine: ShardedEngine) -> str:
    result = engine.step()
    engine.check_integrity()
    return "".join(step.request_id for step in result.sequences)


def test_every_stage_gets_a_step_before_the_oldest_is_waited_for() -> None:
    engine, executor = an_engine(stages=2)
    add(engine, "abc")

    turns = [told(engine) for _ in range(3)]

    assert turns == ["ab", "c", "ab"]
    assert executor.calls == ["begin ab", "begin c", "end ab", "begin ab", "end c", "begin c", "end ab"]


def test_one_sequence_alone_is_one_step_after_the_other() -> None:
    engine, executor = an_engine(stages=3)
    add(engine, "a", max_tokens=2)

    turns = [told(engine), told(engine)]

    assert turns == ["a", "a"]
    assert executor.calls == ["begin a", "end a", "begin a", "end a"]
    assert not engine.has_work()


def test_one_stage_has_one_step() -> None:
    engine, executor = an_engine(stages=1)
    add(engine, "ab")

    told(engine)
    told(engine)

    assert executor.calls == ["begin ab", "end ab", "begin ab", "end ab"]


def test_steps_of_dropped_requests_are_waited_for_before_a_probe() -> None:
    engine, executor = an_engine(stages=2)
    add(engine, "ab")
    told(engine)
    engine.cancel("a")
    engine.cancel("b")

    turns = []
    while engine.has_work():
        turns.append(told(engine))
    engine.step()

    assert turns == [""]
    assert executor.calls[-2:] == ["end b", "probe"]


def test_groups_step_together() -> None:
    engine, executor = an_engine(stages=2, groups=2)
    add(engine, "abc")

    told(engine)

    assert executor.calls == ["begin a|b", "begin c|", "end a|b"]


def test_an_engine_may_be_closed_with_steps_under_way() -> None:
    engine, executor = an_engine(stages=2)
    add(engine, "ab")
    told(engine)

    engine.close()

    assert executor.calls[-1] == "close"


def test_the_expected_time_is_that_of_the_oldest_step_and_of_the_one_that_begins_before() -> None:
    engine, _ = an_engine(stages=2)
    add(engine, "ab")
    engine.probe(3)
    before_s = engine.expected_step_s()
    told(engine)

    while_one_is_under_way_s = engine.expected_step_s()

    assert before_s == pytest.approx(2 * 0.25)  # of six tokens, when only steps of three are known
    assert while_one_is_under_way_s == pytest.approx(0.25 + 0.25)


def test_a_turn_tells_how_long_steps_were_under_way_and_what_stages_did() -> None:
    engine, _ = an_engine(stages=2)
    add(engine, "ab", max_tokens=1)

    result = engine.step()
    idle = an_engine(stages=2)[0].step()

    assert result.stage_times == (StageTimes(0, 0.125),)
    assert 0 < result.active_s < 10
    assert (idle.active_s, idle.stage_times) == (0.0, ())
