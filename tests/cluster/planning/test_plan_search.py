"""The smallest plan that fits, and what is said where none does."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_cluster.planning.gpu_nodes import parse_nodes
from shardline_cluster.planning.model_needs import ModelNeeds
from shardline_cluster.planning.plan_search import AskedPlan, ChosenPlan, NoPlan, choose_plan, fit
from shardline_cluster.planning.remedies import enough_nodes, fitting_format, on_each_gpu
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.cluster.planning.planned import a_node, needs_of

AUTO = AskedPlan()


def the_plan(needs: ModelNeeds, nodes: str, asked: AskedPlan = AUTO) -> ChosenPlan:
    found = choose_plan(needs, parse_nodes(nodes), asked)
    assert isinstance(found, ChosenPlan)
    return found


def the_refusal(needs: ModelNeeds, nodes: str, asked: AskedPlan = AUTO) -> NoPlan:
    found = choose_plan(needs, parse_nodes(nodes), asked)
    assert isinstance(found, NoPlan)
    return found


@pytest.mark.parametrize(
    ("name", "quantisation", "nodes", "num_gpus"),
    [
        ("llama-3.1-8b", "fp16", "1xRTX-4090", 1),
        ("llama-3.1-8b", "fp16", "2xRTX-3090", 1),
        ("qwen3-32b", "fp16", "8xH100-80GB", 1),
        ("llama-3.3-70b", "fp16", "8xA100-80GB", 2),
        ("llama-3.3-70b", "q4_0", "2xL40S", 1),
        ("llama-3.3-70b", "q4_k_m", "2xRTX-4090,1xH100", 1),
        ("mixtral-8x7b", "fp16", "8xH100-80GB", 2),
        ("llama-4-maverick", "bf16", "2x8xH100-80GB", 12),  # 11 stages of its lumpy layers do not come out
        ("deepseek-v3", "int4", "8xH100-80GB", 5),
        ("deepseek-v3", "fp8", "2x8xH100-80GB", 10),
    ],
)
def test_the_usual_cards_do_for_the_usual_models(name: str, quantisation: str, nodes: str, num_gpus: int) -> None:
    found = the_plan(needs_of(name, quantisation), nodes)

    assert found.plan.num_ranks == num_gpus


@pytest.mark.parametrize("quantisation", ["bf16", "fp8", "int8", "q8_0"])
def test_deepseek_v3_needs_fewer_than_8_bits_to_fit_8_cards_of_80_gb(quantisation: str) -> None:
    refusal = the_refusal(needs_of("deepseek-v3", quantisation), "8xH100-80GB")

    assert refusal.nearest is None
    assert "such GPUs at least: there are 8 x H100-80GB on one node" in refusal.reason


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(("smollm2-1.7b", "gemma-3-4b", "qwen3-30b-a3b", "mixtral-8x7b")),
    gpus=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    memory_gib=st.sampled_from((12, 24, 48)),
    context=st.sampled_from((512, 8192)),
    concurrency=st.integers(1, 16),
)
def test_what_is_chosen_fits_and_nothing_smaller_does(
    name: str, gpus: list[int], memory_gib: int, context: int, concurrency: int
) -> None:
    needs = needs_of(name, context=context, concurrency=concurrency)
    nodes = [a_node(f"n{number}", count, memory_gib=memory_gib) for number, count in enumerate(gpus)]
    sizes = {node.name: len(node.free_gpus) for node in nodes}

    found = choose_plan(needs, nodes, AUTO)

    num_ranks = found.plan.num_ranks if isinstance(found, ChosenPlan) else sum(gpus) + 1
    if isinstance(found, ChosenPlan):
        assert all(stage.total_bytes <= nodes[0].gpu.usable_bytes for stage in found.stages)
        assert all(len(bundle.gpus) <= sizes[bundle.node] for bundle in found.replicas[0])
    smaller = [
        ParallelPlan(tp=tp, pp=pp) for tp in range(1, max(gpus) + 1) for pp in range(1, 25) if tp * pp < num_ranks
    ]
    assert all(isinstance(fit(needs, nodes, plan), str) for plan in smaller)


def test_of_shapes_with_as_few_cards_the_one_that_decodes_fastest_is_taken() -> None:
    needs = needs_of("llama-3.3-70b")
    assert isinstance(fit(needs, parse_nodes("8xH100"), ParallelPlan(pp=2)), ChosenPlan)

    assert the_plan(needs, "8xH100").plan == ParallelPlan(tp=2)


def test_room_for_more_requests_takes_more_cards() -> None:
    few, many = (needs_of("llama-3.3-70b", context=32768, concurrency=number) for number in (1, 16))

    assert the_plan(few, "8xH100").plan.num_ranks < the_plan(many, "8xH100").plan.num_ranks


def test_int8_keys_and_values_take_fewer_cards() -> None:
    exact, rounded = (
        needs_of("llama-3.3-70b", context=32768, concurrency=16, kv_dtype=dtype) for dtype in ("bfloat16", "int8")
    )

    assert the_plan(exact, "8xH100").plan.num_ranks > the_plan(rounded, "8xH100").plan.num_ranks


def test_tensor_parallelism_stays_inside_nodes_and_stages_lie_on_both() -> None:
    found = the_plan(needs_of("deepseek-v3", "fp8"), "2x8xH100")

    assert found.plan.pp > 1
    assert {bundle.node for bundle in found.replicas[0]} == {"node-0", "node-1"}


def test_a_part_that_is_asked_for_stands_and_the_rest_follows() -> None:
    found = the_plan(needs_of("llama-3.3-70b"), "8xH100", AskedPlan(pp=4))

    assert (found.plan.pp, found.plan.tp) == (4, 1)


def test_a_latent_cache_is_divided_among_groups_where_copies_of_it_would_not_fit() -> None:
    needs = needs_of("deepseek-v3", "int4", context=100_000, concurrency=32)

    found = the_plan(needs, "8xH100")

    assert found.plan.dp > 1
    assert found.plan.ep == found.plan.tp * found.plan.dp
    assert isinstance(choose_plan(needs, parse_nodes("8xH100"), AskedPlan(dp=1)), NoPlan)


def test_experts_are_dealt_out_over_the_row_where_asked_for() -> None:
    found = the_plan(needs_of("qwen3-30b-a3b", concurrency=2), "8xL40S", AskedPlan(dp=2, shares_experts=True))

    assert (found.plan.dp, found.plan.ep) == (2, 2 * found.plan.tp)


@pytest.mark.parametrize(
    ("asked", "told", "nearest"),
    [
        (AskedPlan(tp=1, pp=1), "tp=1 takes 145.8 GB of a GPU .*, of which 78.6 GB are usable", "tp=1 pp=2"),
        (AskedPlan(tp=16, pp=1), "tp=16 stays inside a node, and the largest has 8 GPUs", "tp=8"),
        (AskedPlan(tp=1, pp=81), "pp=81 is more than the model's 80 layers", "tp=1 pp=8"),
        (AskedPlan(tp=4, pp=3), "tp=4 pp=3 needs 3 times 4 GPUs on one node: there are 8 x H100-80GB", "tp=4 pp=2"),
        (AskedPlan(tp=4, pp=1, ep=2), "ep=2 deals out experts, but the model has none", "tp=4"),
        (AskedPlan(ep=2), "^ep=2 deals out experts, but the model has none", "tp=1 pp=2"),
        (AskedPlan(tp=4, pp=1, ep=3), "ep is 3; it must be 1, or divide", "tp=4"),
        (AskedPlan(tp=4, ep=3), "ep is 3; it must be 1, or divide", "tp=4"),
        (AskedPlan(tp=2, pp=1, dp=2), "dp=2 groups need a request each, but at most 1 is", "tp=2"),
        (AskedPlan(tp=16), "tp=16 stays inside a node, and the largest has 8 GPUs", "tp=8"),
        (AskedPlan(pp=81), "pp=81 is more than the model's 80 layers", "tp=1 pp=8"),
        (AskedPlan(pp=16), "no plan of that kind has a place", "tp=1 pp=8"),
        (AskedPlan(num_replicas=5), "not even the largest plan fits: 5 replicas of .* need", None),
    ],
)
def test_a_shape_that_cannot_work_says_why_and_what_can(asked: AskedPlan, told: str, nearest: str | None) -> None:
    refusal = the_refusal(needs_of("llama-3.3-70b"), "8xH100", asked)

    assert re.search(told, refusal.reason), refusal.reason
    assert (str(refusal.nearest.plan) if refusal.nearest else None) == nearest


def test_more_ranks_than_heads_are_refused_also_where_a_node_has_so_many() -> None:
    refusal = the_refusal(needs_of("llama-3.1-8b"), "64xH100", AskedPlan(tp=40))

    assert refusal.reason == "tp=40 is more than the model's 32 attention heads"
    assert refusal.nearest is not None
    assert str(refusal.nearest.plan) == "tp=32"


def test_a_narrow_matrix_bounds_the_ranks() -> None:
    needs = needs_of("smollm2-135m")

    assert "more than the model's 9 attention heads" in str(fit(needs, parse_nodes("16xL4"), ParallelPlan(tp=10)))
    shape = needs.shape
    narrow = replace(needs, shape=replace(shape, layers=tuple(replace(layer, mlp_width=48) for layer in shape.layers)))
    told = fit(narrow, parse_nodes("16xL4"), ParallelPlan(tp=7))
    assert told == "a matrix of width 48 cannot be cut in 7 pieces of at least 8 numbers"


def test_what_would_help_is_a_smaller_format_or_more_nodes() -> None:
    needs, nodes = needs_of("deepseek-v3", "fp8"), parse_nodes("8xH100")

    enough = enough_nodes(needs, nodes[0], AUTO)

    assert fitting_format(needs, nodes, AUTO) == "q6_k"
    assert enough is not None
    assert enough[0] == 2
    assert enough_nodes(needs_of("deepseek-v3"), a_node("n", 1, memory_gib=8), AUTO) is None


def test_every_known_card_is_told_how_many_it_takes() -> None:
    told = dict(on_each_gpu(needs_of("llama-3.1-8b"), AUTO))

    assert {name for name, chosen in told.items() if chosen and chosen.plan.num_ranks == 1} >= {
        "L4",
        "RTX-3090",
        "H200-141GB",
    }
    assert told["T4"] is not None
    assert told["T4"].plan.num_ranks == 2
