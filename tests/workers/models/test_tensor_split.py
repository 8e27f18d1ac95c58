"""Plans that would cut what belongs together, or leave a rank without a part, are refused with the nearest one."""

import dataclasses

import pytest

from shardline_workers.kernels.operands import AttentionShape, RoutingRule
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.input_blocks import InputBlocks
from shardline_workers.models.model_share import share_of
from shardline_workers.models.tensor_split import check_split
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from tests.workers.models.test_decoder_shape import SHAPE

SMOLLM2 = dataclasses.replace(
    SHAPE,
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    attention=AttentionShape(num_heads=9, num_kv_heads=3, head_dim=64),
)
WITH_EXPERTS = dataclasses.replace(
    SMOLLM2,
    experts=ExpertsShape(layers=frozenset({0}), num_experts=3, width=512, rule=RoutingRule(num_active=2)),
)


@pytest.mark.parametrize("tp", range(1, 10))
def test_blocks_of_a_head_or_less_can_be_dealt_to_as_many_ranks_as_there_are_heads(tp: int) -> None:
    check_split(SMOLLM2, ParallelPlan(tp=tp), InputBlocks(width=32, heads=64))


@pytest.mark.parametrize(
    ("shape", "plan", "blocks", "told"),
    [
        (
            SMOLLM2,
            ParallelPlan(tp=10, pp=2),
            InputBlocks(),
            "this model cannot be dealt to tp=10 pp=2: it has 9 attention heads and 49152 tokens; the nearest that"
            " works is tp=9 pp=2",
        ),
        (
            SMOLLM2,
            ParallelPlan(tp=8),
            InputBlocks(width=256),
            "this model cannot be dealt to tp=8: the width 1536 of its MLPs has 6 blocks of 256 weights in this file,"
            " for 8 ranks; the nearest that works is tp=6",
        ),
        (
            SMOLLM2,
            ParallelPlan(tp=2),
            InputBlocks(width=256, heads=256),
            "this model cannot be dealt to tp=2: the matrix that reads its heads has blocks of 256 weights in this"
            " file, which only every 4 heads of 64 fill; the nearest that works is tp=1",
        ),
        (
            dataclasses.replace(SMOLLM2, attention=AttentionShape(num_heads=32, num_kv_heads=8, head_dim=64)),
            ParallelPlan(tp=12),
            InputBlocks(heads=256),
            "this model cannot be dealt to tp=12: the matrix that reads its heads has blocks of 256 weights in this"
            " file, which only every 4 heads of 64 fill; the nearest that works is tp=8",
        ),
        (
            SMOLLM2,
            ParallelPlan(tp=2, ep=2),
            InputBlocks(),
            "this model cannot be dealt to tp=2 ep=2: it has no experts in a layer, for ep=2 parts; the nearest that"
            " works is tp=2",
        ),
        (
            WITH_EXPERTS,
            ParallelPlan(tp=4, ep=4),
            InputBlocks(),
            "this model cannot be dealt to tp=4 ep=4: it has 3 experts in a layer, for ep=4 parts; the nearest that"
            " works is tp=4 ep=2",
        ),
        (
            WITH_EXPERTS,
            ParallelPlan(dp=5, ep=5),
            InputBlocks(),
            "this model cannot be dealt to tp=1 ep=5 dp=5: it has 3 experts in a layer, for ep=5 parts; the nearest"
            " that works is tp=1 dp=5",
        ),
    ],
)
def test_a_plan_that_cannot_work_is_refused(
    shape: DecoderShape, plan: ParallelPlan, blocks: InputBlocks, told: str
) -> None:
    with pytest.raises(ValueError) as caught:
        share_of(shape, RankPosition.of(plan, 0), range(1), blocks=blocks)

    assert str(caught.value) == told


def test_widths_are_dealt_out_in_the_files_own_blocks() -> None:
    plan, blocks = ParallelPlan(tp=4), InputBlocks(width=256)

    spans = [
        share_of(SMOLLM2, RankPosition.of(plan, rank), range(1), blocks=blocks).width_span(1536) for rank in range(4)
    ]

    assert spans == [range(512), range(512, 1024), range(1024, 1280), range(1280, 1536)]


def test_a_width_of_fewer_units_than_ranks_is_dealt_out_in_smaller_ones() -> None:
    plan = ParallelPlan(tp=3)
    narrow = dataclasses.replace(SMOLLM2, intermediate_size=40, vocab_size=20)
    shares = [share_of(narrow, RankPosition.of(plan, rank), range(1)) for rank in range(3)]

    assert [len(share.width_span(40)) for share in shares] == [16, 16, 8]
    assert [len(share.vocabulary) for share in shares] == [8, 8, 4]
