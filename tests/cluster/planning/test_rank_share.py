"""The share of the fullest rank, for each way of dealing out."""

import pytest

from shardline_cluster.planning.rank_share import rank_share
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_parts import PartName, PartSplit, embedding_part, layer_parts
from tests.cluster.planning.planned import needs_of


def share_of(name: str, part_name: PartName, split: PartSplit, plan: ParallelPlan) -> float:
    """Of the last layer's part, as a fraction."""
    shape = needs_of(name).shape
    layer = shape.layers[-1]
    part = next(part for part in layer_parts(shape, layer) if (part.name, part.split) == (part_name, split))
    return rank_share(part, shape, plan, experts=layer.experts).num_parameters / part.num_parameters


@pytest.mark.parametrize(
    ("split", "tp", "share"),
    [
        (PartSplit.QUERY_HEADS, 3, 3 / 8),
        (PartSplit.KV_HEADS, 3, 3 / 8),
        (PartSplit.QUERY_HEADS, 16, 1 / 16),
        (PartSplit.KV_HEADS, 16, 1 / 8),  # two ranks have the same
    ],
)
def test_attention_is_dealt_by_groups_and_key_value_heads_are_copied(split: PartSplit, tp: int, share: float) -> None:
    assert share_of("llama-3.1-8b", PartName.ATTENTION, split, ParallelPlan(tp=tp)) == share


def test_a_width_is_cut_in_blocks_of_numbers_that_share_a_scale() -> None:
    share = share_of("llama-3.1-8b", PartName.MLP, PartSplit.WIDTH, ParallelPlan(tp=3))

    assert share == 150 * 32 / 14336  # of 448 blocks


@pytest.mark.parametrize(
    ("plan", "share"),
    [
        (ParallelPlan(tp=4), 1 / 4),
        (ParallelPlan(tp=4, ep=2), 1 / 4),
        (ParallelPlan(tp=4, dp=2, ep=8), 1 / 8),
        (ParallelPlan(tp=4, dp=2), 1 / 4),
        (ParallelPlan(tp=3, ep=3), 43 / 128),
    ],
)
def test_experts_are_cut_or_dealt_over_a_whole_row(plan: ParallelPlan, share: float) -> None:
    assert share_of("qwen3-30b-a3b", PartName.EXPERTS, PartSplit.EXPERTS, plan) == share


def test_what_makes_latent_vectors_every_rank_has() -> None:
    plan = ParallelPlan(tp=8)

    assert share_of("deepseek-v3", PartName.ATTENTION, PartSplit.WHOLE, plan) == 1
    assert share_of("deepseek-v3", PartName.ATTENTION, PartSplit.QUERY_HEADS, plan) == 1 / 8


def test_the_vocabulary_is_cut_like_a_width() -> None:
    shape = needs_of("llama-3.1-8b").shape

    share = rank_share(embedding_part(shape), shape, ParallelPlan(tp=4))

    assert share.num_parameters == shape.vocab_size // 4 * shape.hidden_size
