"""What a rank does with the frames that come, without a model and without a leader."""

from typing import cast

import pytest

from shardline_workers.gang.answer_encoding import decode_answer
from shardline_workers.gang.step_encoding import encode_probe, encode_step, encode_stop
from shardline_workers.gang.step_ends import RankEnd
from shardline_workers.gang.step_frames import ProbedAnswer, SampledAnswer
from shardline_workers.gang.step_loop import StepLoop
from shardline_workers.gang.step_writer import StateDriftError
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.ranks.model_runner import ModelRunner, ProbeFailedError
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.step_plan import SampledToken, SlotChunk, SlotPlan

OWN = StateChecksum(block_tables=1, slots=2)
PLAN = SlotPlan(chunks=(SlotChunk(slot=1, start=4, token_ids=(9,), first_new_block=0, new_block_ids=(), samples=True),))


class WrittenFrames:
    """A rank's end of a channel on which everything was sent already."""

    def __init__(self, *frames: bytes) -> None:
        self._frames = list(frames)
        self.answers: list[bytes] = []

    def receive(self, limit_s: float) -> bytes:
        return self._frames.pop(0)

    def answer(self, frame: bytes) -> None:
        self.answers.append(frame)


class CountingRunner:
    """Chooses the number of the step, counted from 0."""

    def __init__(self) -> None:
        self.executed: list[tuple[SlotPlan, int]] = []

    def state_checksum(self) -> StateChecksum:
        return OWN

    def execute(self, plan: SlotPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        self.executed.append((plan, num_threads))
        return [SampledToken(token_id=len(self.executed) - 1)], RunTimes(wall_s=0.25)

    def expert_loads(self) -> None:
        return None

    def probe(self, num_tokens: int, *, num_threads: int) -> RunTimes:
        if num_tokens == 3:
            raise ProbeFailedError("nonsense")
        return RunTimes(wall_s=0.5)


def run(end: WrittenFrames, runner: CountingRunner, *, plan: ParallelPlan | None = None) -> None:
    position = RankPosition.of(plan or ParallelPlan(pp=2), 1)
    StepLoop(cast("RankEnd", end), cast("ModelRunner", runner), position, max_threads=7).run()


def test_a_stages_first_rank_answers_every_step_and_probe_until_it_is_stopped() -> None:
    frames = (
        encode_step((PLAN,), number=1, num_threads=1),
        encode_probe(number=2, num_tokens=3, num_threads=2),
        encode_probe(number=3, num_tokens=1, num_threads=2),
        encode_step((PLAN,), number=4, num_threads=2),
        encode_stop(),
        b"never read",
    )
    end, runner = WrittenFrames(*frames), CountingRunner()

    run(end, runner)

    assert [decode_answer(answer) for answer in end.answers] == [
        SampledAnswer(number=1, sampled=[SampledToken(token_id=0)], busy_s=0.25),
        ProbedAnswer(number=2, nonsense="nonsense"),
        ProbedAnswer(number=3),
        SampledAnswer(number=4, sampled=[SampledToken(token_id=1)], busy_s=0.25),
    ]
    assert runner.executed == [(PLAN, 1), (PLAN, 7)]


def test_other_ranks_of_a_stage_compute_and_say_nothing() -> None:
    end, runner = WrittenFrames(encode_step((PLAN,), number=1, num_threads=1), encode_stop()), CountingRunner()

    run(end, runner, plan=ParallelPlan(tp=2))

    assert (len(runner.executed), end.answers) == (1, [])


def test_a_step_with_the_ranks_own_checksum_is_computed() -> None:
    frame = encode_step((PLAN,), number=1, num_threads=1, checksums=(OWN,))
    end, runner = WrittenFrames(frame, encode_stop()), CountingRunner()

    run(end, runner)

    assert len(runner.executed) == 1


def test_a_rank_that_has_drifted_fails_before_it_computes_the_step() -> None:
    leaders = StateChecksum(block_tables=1, slots=3)
    end = WrittenFrames(encode_step((PLAN,), number=64, num_threads=1, checksums=(leaders,)), encode_stop())
    runner = CountingRunner()

    with pytest.raises(StateDriftError, match="rank 1 has drifted from its leader before step 64"):
        run(end, runner)

    assert (runner.executed, end.answers) == ([], [])
