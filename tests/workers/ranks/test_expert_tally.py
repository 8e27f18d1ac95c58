from dataclasses import replace

import pytest
import torch

from shardline_workers.engine import ExpertLoads
from shardline_workers.models.input_blocks import InputBlocks
from shardline_workers.models.model_share import ModelShare
from shardline_workers.parallel.expert_placement import ExpertPlacement
from shardline_workers.parallel.head_split import HeadShard
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.ranks.expert_tally import STEPS_PER_REPORT, ExpertTally

PLACEMENT = ExpertPlacement(((0, 1), (0, 2)))  # expert 0 is on both parts


def share(rank: int = 0, *, layers: range = range(2), sparse: tuple[int, ...] = (1,)) -> ModelShare:
    return ModelShare(
        position=RankPosition.of(ParallelPlan(tp=2, ep=2), rank),
        layers=layers,
        heads=HeadShard(range(1), range(1)),
        vocabularies=(range(8), range(8, 16)),
        blocks=InputBlocks(),
        placements=dict.fromkeys(sparse, PLACEMENT),
    )


def reports(tally: ExpertTally, num_steps: int) -> list[ExpertLoads]:
    return [report for _ in range(num_steps) if (report := tally.report()) is not None]


def test_what_came_since_the_last_report_is_told_every_so_many_steps() -> None:
    counts = torch.zeros((2, 3), dtype=torch.int64)
    tally = ExpertTally(counts, share())

    counts[1] += torch.tensor([4, 1, 0])
    assert reports(tally, STEPS_PER_REPORT - 1) == []
    assert reports(tally, 1) == [ExpertLoads((4, 1, 0), (3.0, 2.0))]

    counts[1] += torch.tensor([0, 0, 5])
    assert reports(tally, STEPS_PER_REPORT) == [ExpertLoads((0, 0, 5), (0.0, 5.0))]


def test_tokens_of_nobody_do_not_count() -> None:
    counts = torch.zeros((2, 3), dtype=torch.int64)
    tally = ExpertTally(counts, share())

    with tally.uncounted():
        counts += 7
    counts[1, 1] += 1

    assert reports(tally, STEPS_PER_REPORT) == [ExpertLoads((0, 1, 0), (1.0, 0.0))]


def test_only_the_first_rank_of_a_group_tells_what_all_of_them_count() -> None:
    assert reports(ExpertTally(torch.zeros((2, 3), dtype=torch.int64), share(1)), 2 * STEPS_PER_REPORT) == []


def test_a_stage_without_experts_adds_nothing_to_what_others_tell() -> None:
    dense = ExpertTally(torch.zeros((1, 3), dtype=torch.int64), share(layers=range(1), sparse=()))
    (told,) = reports(dense, STEPS_PER_REPORT)
    others = ExpertLoads((1, 2, 3), (2.0, 4.0))

    assert told + others == others


def test_imbalance_is_the_hottest_part_over_the_mean() -> None:
    even = ExpertLoads((4, 4), (4.0, 4.0))

    assert even.imbalance == 1
    assert replace(even, by_part=(6.0, 2.0)).imbalance == pytest.approx(1.5)
    assert ExpertLoads((), ()).imbalance == 1
