import torch

from shardline_workers.kernels.step_buffers import StepCount
from shardline_workers.ranks.input_tensors import InputTensors
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.step_plan import ScheduledChunk, StepPlan


def inputs() -> InputTensors:
    return InputTensors(max_tokens=8, max_seqs=3, max_sampled=5, max_blocks=4, block_size=2, device=torch.device("cpu"))


def chunk(
    slot: int,
    start: int,
    token_ids: tuple[int, ...],
    *,
    first: int = 0,
    new: tuple[int, ...] = (),
    samples: bool = True,
) -> ScheduledChunk:
    return ScheduledChunk(
        key=SequenceKey(f"r{slot}", 0),
        arrival=slot,
        slot=slot,
        start=start,
        token_ids=token_ids,
        first_new_block=first,
        new_block_ids=new,
        samples=samples,
    )


def test_a_ragged_batch_is_laid_out_token_by_token() -> None:
    tensors = inputs()
    tensors.write(StepPlan(chunks=(chunk(2, 0, (5, 6, 7), new=(9, 4), samples=False), chunk(0, 0, (8,), new=(1,)))))

    step = tensors.step

    assert step.header.tolist()[:3] == [4, 2, 1]
    assert step.token_ids[:4].tolist() == [5, 6, 7, 8]
    assert step.positions[:4].tolist() == [0, 1, 2, 0]
    assert step.cache_places[:4].tolist() == [18, 19, 8, 2]
    assert step.query_starts[:3].tolist() == [0, 3, 4]
    assert step.context_lengths[:2].tolist() == [3, 1]
    assert step.slots[:2].tolist() == [2, 0]
    assert step.sampled_rows[:1].tolist() == [3]


def test_the_table_of_a_slot_grows_by_what_plans_bring() -> None:
    tensors = inputs()
    tensors.write(StepPlan(chunks=(chunk(1, 0, (5, 6, 7), new=(9, 4)),)))
    tensors.write(StepPlan(chunks=(chunk(1, 3, (8,)),)))
    tensors.write(StepPlan(chunks=(chunk(1, 4, (8,), first=2, new=(0,)),)))

    step = tensors.step

    assert step.block_tables[1, :3].tolist() == [9, 4, 0]
    assert step.cache_places[0] == 0
    assert step.context_lengths[0] == 5


def test_a_slot_that_is_used_again_starts_with_its_new_blocks() -> None:
    tensors = inputs()
    tensors.write(StepPlan(chunks=(chunk(1, 0, (5, 6, 7), new=(9, 4)),)))
    tensors.write(StepPlan(chunks=(chunk(1, 0, (5,), new=(3,)),)))

    assert tensors.step.cache_places[0] == 6


def test_counts_of_the_step_before_do_not_stay() -> None:
    tensors = inputs()
    tensors.header[StepCount.DRAWN] = 2

    tensors.write(StepPlan())
    tensors.upload()

    assert tensors.step.header.tolist() == [0] * len(StepCount)


def test_a_device_of_its_own_gets_a_copy() -> None:
    tensors = InputTensors(
        max_tokens=8, max_seqs=3, max_sampled=5, max_blocks=4, block_size=2, device=torch.device("meta")
    )

    tensors.write(StepPlan(chunks=(chunk(0, 0, (5,), new=(1,)),)))
    tensors.upload()

    assert tensors.step.token_ids.device.type == "meta"
    assert tensors.header[StepCount.TOKENS] == 1
