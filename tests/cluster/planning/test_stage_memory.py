"""What ranks hold, added up and compared with the whole model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_cluster.planning.stage_memory import stage_memories
from shardline_workers.parallel.parallel_plan import ParallelPlan, possible_ep
from shardline_workers.sizing.stored_bytes import weights_bytes
from tests.cluster.planning.planned import needs_of

MODELS = ("llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "llama-4-scout", "deepseek-v3", "smollm2-135m")


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(MODELS), tp=st.integers(1, 8), pp=st.integers(1, 6), dp=st.integers(1, 2), data=st.data())
def test_every_layer_lies_in_one_stage_and_nothing_of_the_model_is_missing(
    name: str, tp: int, pp: int, dp: int, data: st.DataObject
) -> None:
    needs = needs_of(name, concurrency=4)
    plan = ParallelPlan(tp=tp, pp=pp, dp=dp, ep=data.draw(st.sampled_from(possible_ep(tp=tp, dp=dp))))

    stages = stage_memories(needs, plan)

    assert [layer for stage in stages for layer in stage.layers] == list(range(needs.shape.num_layers))
    # Fullest ranks: together at least the model.
    held = sum(stage.weights_bytes for stage in stages) * plan.tp * plan.dp
    assert held >= weights_bytes(needs.shape, needs.stored)
    kv = sum(stage.kv_bytes for stage in stages) * plan.tp * plan.dp
    assert kv >= needs.shape.kv.held_bytes(4 * 8192)


def test_one_rank_holds_the_model_and_its_keys_and_values() -> None:
    needs = needs_of("llama-3.1-8b", context=1000, concurrency=3)

    (stage,) = stage_memories(needs, ParallelPlan())

    assert stage.weights_bytes == pytest.approx(weights_bytes(needs.shape, needs.stored), rel=1e-6)
    assert stage.kv_bytes == needs.shape.kv.held_bytes(3000)


@pytest.mark.parametrize(("tp", "share"), [(2, 1 / 2), (4, 1 / 4), (8, 1 / 8), (3, 3 / 8), (16, 1 / 8)])
def test_keys_and_values_are_cut_by_heads_and_copied_beyond_them(tp: int, share: float) -> None:
    needs = needs_of("llama-3.1-8b")

    (stage,) = stage_memories(needs, ParallelPlan(tp=tp))

    assert stage.kv_bytes == share * needs.shape.kv.held_bytes(8192)


def test_a_latent_cache_is_whole_on_every_rank_but_divided_among_groups() -> None:
    needs = needs_of("deepseek-v3", concurrency=4)

    (shared,) = stage_memories(needs, ParallelPlan(tp=4))
    (divided,) = stage_memories(needs, ParallelPlan(dp=4, ep=4))

    assert shared.kv_bytes == needs.shape.kv.held_bytes(4 * 8192)
    assert divided.kv_bytes == needs.shape.kv.held_bytes(8192)


def test_experts_dealt_out_take_no_more_than_experts_cut() -> None:
    needs = needs_of("qwen3-30b-a3b")

    (cut,) = stage_memories(needs, ParallelPlan(tp=4))
    (dealt,) = stage_memories(needs, ParallelPlan(tp=4, ep=4))
    (not_dividing,) = stage_memories(needs, ParallelPlan(tp=3, ep=3))

    assert dealt.weights_bytes == cut.weights_bytes
    assert dealt.weights_bytes < not_dividing.weights_bytes  # 43 of 128 experts


def test_embedding_and_head_make_the_first_and_last_stage_shorter() -> None:
    stages = stage_memories(needs_of("gemma-3-4b"), ParallelPlan(pp=4))

    lengths = [len(stage.layers) for stage in stages]
    assert max(lengths[0], lengths[-1]) < min(lengths[1:-1])
