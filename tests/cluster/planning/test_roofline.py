"""Bounds of speed against figures that follow from data sheets by hand."""

import pytest

from shardline_cluster.planning.gpu_models import find_gpu
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.roofline import Roofline, roofline
from shardline_cluster.planning.stage_memory import stage_memories
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.cluster.planning.planned import needs_of


def bounds_of(needs: ModelNeeds, plan: ParallelPlan = ParallelPlan(), gpu: str = "H100") -> Roofline:  # noqa: B008
    return roofline(needs, plan, stage_memories(needs, plan), find_gpu(gpu))


# Bytes read by hand: all weights but the embedding's, of Mixtral and Qwen 3 those of the active experts.
@pytest.mark.parametrize(
    ("name", "quantisation", "gigabytes"),
    [
        ("llama-3.1-8b", "bf16", 15.0),
        ("llama-3.1-8b", "fp8", 8.0),
        ("mixtral-8x7b", "fp8", 12.9),
        ("qwen3-30b-a3b", "bf16", 6.1),
    ],
)
def test_one_request_decodes_as_fast_as_weights_are_read(name: str, quantisation: str, gigabytes: float) -> None:
    bounds = bounds_of(needs_of(name, quantisation, context=16))

    assert bounds.decode_alone == pytest.approx(3350 / gigabytes, rel=0.03)


def test_keys_and_values_are_read_within_windows_only() -> None:
    needs = needs_of("gemma-3-27b", context=131072)

    seconds = 1 / bounds_of(needs, gpu="B200").decode_alone

    weights = 27.0e9 * 2
    assert seconds == pytest.approx((weights + needs.shape.kv.seen_bytes(131072)) / 8e12, rel=0.03)


def test_many_requests_share_the_reading_until_multiplying_takes_longer() -> None:
    alone, some, many = (bounds_of(needs_of("llama-3.1-8b", context=16, concurrency=n)) for n in (1, 32, 4096))

    assert some.decode_together == pytest.approx(32 * alone.decode_alone, rel=0.05)
    assert many.decode_together < 4096 * alone.decode_alone
    assert many.decode_together == pytest.approx(989e12 / (2 * 7.5e9), rel=0.05)


def test_two_ranks_read_twice_as_fast_and_two_stages_in_turn() -> None:
    needs = needs_of("llama-3.1-8b", context=16)

    alone, shared, staged = (
        bounds_of(needs, plan).decode_alone for plan in (ParallelPlan(), ParallelPlan(tp=2), ParallelPlan(pp=2))
    )

    assert shared == pytest.approx(2 * alone, rel=0.02)
    assert staged == pytest.approx(alone, rel=0.02)


def test_stages_work_at_the_same_time_for_as_many_batches() -> None:
    needs = needs_of("llama-3.1-8b", context=16, concurrency=8)

    one, two = (bounds_of(needs, plan) for plan in (ParallelPlan(), ParallelPlan(pp=2)))

    # Each reads half of the weights, for half of the requests.
    assert two.decode_together == pytest.approx(one.decode_together, rel=0.1)
    assert two.prefill == pytest.approx(2 * one.prefill, rel=0.1)


def test_a_batch_meets_more_experts_than_one_token() -> None:
    alone, many = (bounds_of(needs_of("qwen3-30b-a3b", context=16, concurrency=n)) for n in (1, 64))

    assert many.decode_together < 16 * alone.decode_alone  # nearly all of 128 experts are read then


def test_prefill_multiplies_twice_with_each_active_parameter() -> None:
    bounds = bounds_of(needs_of("llama-3.1-8b", context=16))

    assert bounds.prefill == pytest.approx(989e12 / (2 * (7.5e9 - 0.525e9)), rel=0.01)


def test_attention_to_a_long_context_slows_prefill() -> None:
    short, long = (bounds_of(needs_of("llama-3.1-8b", context=context)).prefill for context in (16, 131072))

    # 4 operations for each head, dimension and attended token, at half the context on average.
    attended = 4 * 32 * 32 * 128 * 65536
    assert 989e12 / long - 989e12 / short == pytest.approx(attended, rel=0.01)


def test_groups_decode_other_requests_with_the_same_experts() -> None:
    needs = needs_of("deepseek-v3", "fp8", context=16, concurrency=256)

    cut, dealt = (bounds_of(needs, plan) for plan in (ParallelPlan(tp=8), ParallelPlan(tp=1, dp=8, ep=8)))

    assert dealt.decode_together == pytest.approx(cut.decode_together, rel=0.5)
    # Cut by heads, each rank makes all latent vectors.
    assert cut.prefill < dealt.prefill < 1.5 * cut.prefill


def test_of_a_latent_cache_prefill_attends_to_keys_and_values_and_decoding_to_the_vector() -> None:
    short, long = (bounds_of(needs_of("deepseek-v3", "fp8", context=context)) for context in (16, 131072))

    attended = 2 * 61 * 128 * (128 + 64 + 128) * 65536
    assert 1979e12 / long.prefill - 1979e12 / short.prefill == pytest.approx(attended, rel=0.01)


def test_many_long_requests_of_a_latent_cache_are_bound_by_multiplying() -> None:
    needs = needs_of("deepseek-v3", "fp8", context=131072, concurrency=4096)

    bounds = bounds_of(needs, gpu="A100-80GB")

    attended = 2 * 61 * 128 * (2 * 512 + 64) * 131072
    assert bounds.decode_together == pytest.approx(312e12 / (attended + 2 * 36.6e9), rel=0.01)


def test_the_slowest_stage_bounds_the_batches_that_are_on_their_way() -> None:
    needs, plan = needs_of("gemma-3-1b", context=16, concurrency=2), ParallelPlan(pp=2)
    stages = stage_memories(needs, plan)

    both = roofline(needs, plan, stages, find_gpu("H100"))

    each = [roofline(needs, plan, (stage,), find_gpu("H100")).decode_alone for stage in stages]
    assert min(each) < 0.9 * max(each)  # the embedding lies in the first, and is not read
    assert both.decode_together == pytest.approx(min(each))
    assert both.decode_alone == pytest.approx(1 / (1 / each[0] + 1 / each[1]))
