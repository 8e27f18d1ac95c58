"""Leader and rank keep the same state, and a rank that does not is found out at the next checksum."""

import random

import pytest

from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.gang.step_encoding import decode_frame
from shardline_workers.gang.step_frames import ProbeFrame, StepFrame
from shardline_workers.gang.step_writer import CHECK_EVERY_STEPS, StateDriftError, StepWriter, check_drift
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, SlotPlan
from tests.workers.gang.mirrored import Mirror, a_mirror

LIMITS = SchedulerLimits(max_model_len=64, max_num_seqs=4, max_num_batched_tokens=16, num_blocks=40, block_size=4)
NUM_SLOTS = LIMITS.max_num_seqs


def checksum_of(rank: Mirror, *, has_sampler: bool = True) -> StateChecksum:
    return StateChecksum(
        block_tables=rank.inputs.state_checksum(NUM_SLOTS),
        slots=rank.sampler.state_checksum(NUM_SLOTS) if has_sampler else None,
    )


def apply(rank: Mirror, plan: SlotPlan) -> None:
    rank.inputs.write(plan)
    rank.sampler.write(plan, rank.inputs.header)


class Leader:
    """A scheduler under random load, and the frames of its steps."""

    def __init__(self) -> None:
        self._scheduler = Scheduler(LIMITS)
        self._random = random.Random(5)
        self._writer = StepWriter(LIMITS, num_groups=1)

    def next_step(self) -> StepFrame:
        if self._scheduler.load().num_waiting < 3:
            self._add_request()
        plan = self._scheduler.schedule()
        frame = decode_frame(self._writer.step((plan,), num_threads=1), group=0)
        self._scheduler.complete(plan, [SampledToken(token_id=3)] * sum(chunk.num_rows for chunk in plan.chunks))
        assert isinstance(frame, StepFrame)
        return frame

    def next_probe(self) -> ProbeFrame:
        frame = decode_frame(self._writer.probe(2, num_threads=1), group=0)
        assert isinstance(frame, ProbeFrame)
        return frame

    def _add_request(self) -> None:
        number = self._random.getrandbits(64)
        sampling = Sampling(temperature=self._random.random(), seed=number, max_tokens=1 + number % 20)
        prompt_ids = tuple(self._random.choices(range(50), k=1 + number % 30))
        self._scheduler.add(EngineRequest(request_id=str(number), prompt_ids=prompt_ids, sampling=sampling))


def checked_steps(leader: Leader, rank: Mirror, *, num_steps: int, has_sampler: bool = True) -> list[int]:
    """Numbers of the steps that were checked."""
    checked = []
    for _ in range(num_steps):
        frame = leader.next_step()
        if frame.checksum is not None:
            check_drift(checksum_of(rank, has_sampler=has_sampler), frame.checksum, rank=1, number=frame.number)
            checked.append(frame.number)
        apply(rank, frame.plan)
    return checked


@pytest.mark.parametrize("has_sampler", [True, False])
def test_a_rank_that_applies_every_step_never_drifts(has_sampler: bool) -> None:
    checked = checked_steps(Leader(), a_mirror(LIMITS), num_steps=5 * CHECK_EVERY_STEPS, has_sampler=has_sampler)

    assert checked == [CHECK_EVERY_STEPS * number for number in range(1, 6)]


def test_frames_are_numbered_through_and_probes_leave_no_trace() -> None:
    leader, rank = Leader(), a_mirror(LIMITS)

    numbers = [leader.next_probe().number, *checked_steps(leader, rank, num_steps=CHECK_EVERY_STEPS)]

    assert numbers == [1, 1 + CHECK_EVERY_STEPS]


def test_a_flipped_entry_of_a_block_table_is_found_at_the_next_check() -> None:
    leader, rank = Leader(), a_mirror(LIMITS)
    checked_steps(leader, rank, num_steps=CHECK_EVERY_STEPS - 1)
    right = checksum_of(rank)

    rank.inputs.step.block_tables[2, 1] ^= 1

    wrong = checksum_of(rank)
    with pytest.raises(StateDriftError) as caught:
        checked_steps(leader, rank, num_steps=1)
    assert str(caught.value) == (
        f"rank 1 has drifted from its leader before step {CHECK_EVERY_STEPS}: the rank has {wrong}, the leader {right}"
    )
    assert right.block_tables != wrong.block_tables and right.slots == wrong.slots


def test_steps_that_a_rank_has_missed_are_found() -> None:
    leader, rank = Leader(), a_mirror(LIMITS)
    checked_steps(leader, rank, num_steps=CHECK_EVERY_STEPS - 20)
    missed = [leader.next_step().plan for _ in range(19)]
    assert any(plan.starts for plan in missed)

    with pytest.raises(StateDriftError):
        checked_steps(leader, rank, num_steps=1)


def test_a_seed_that_came_wrong_is_found_where_the_rank_has_to_do_with_choices() -> None:
    leader, drifted = Leader(), a_mirror(LIMITS)
    checked_steps(leader, drifted, num_steps=CHECK_EVERY_STEPS - 1)
    frame = leader.next_step()
    assert frame.checksum is not None
    own = checksum_of(drifted)
    assert own.slots is not None

    wrong = StateChecksum(block_tables=own.block_tables, slots=own.slots ^ 1)

    assert wrong.differs_from(frame.checksum)
    assert not StateChecksum(block_tables=own.block_tables, slots=None).differs_from(frame.checksum)
