"""Bundles on nodes, held to what must be true of any of them."""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from shardline_cluster.planning.gang_placement import place_replicas
from shardline_cluster.planning.gpu_nodes import GpuNode
from shardline_cluster.planning.stage_memory import StageMemory
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.cluster.planning.planned import a_node

GIB = 1 << 30


def a_stage(gib: int) -> StageMemory:
    return StageMemory(layers=range(1), weights_bytes=gib * GIB, kv_bytes=0, overhead_bytes=0)


NODES = st.lists(
    st.builds(
        lambda gpus, gib, domain: (gpus, gib, domain),
        st.integers(0, 4),
        st.sampled_from((20, 40, 80)),
        st.sampled_from("ab"),
    ),
    min_size=1,
    max_size=5,
).map(
    lambda kinds: [
        a_node(f"n{number}", gpus, memory_gib=gib, domain=domain) for number, (gpus, gib, domain) in enumerate(kinds)
    ]
)


@given(
    nodes=NODES,
    tp=st.integers(1, 3),
    dp=st.integers(1, 2),
    stages=st.lists(st.integers(1, 75), min_size=1, max_size=3),
    num_replicas=st.integers(1, 3),
)
def test_ranks_have_a_gpu_each_that_is_large_enough_and_groups_stay_on_a_node(
    nodes: list[GpuNode], tp: int, dp: int, stages: list[int], num_replicas: int
) -> None:
    plan = ParallelPlan(tp=tp, pp=len(stages), dp=dp)
    by_name = {node.name: node for node in nodes}

    placed = place_replicas(plan, [a_stage(gib) for gib in stages], nodes, num_replicas=num_replicas)

    for bundles in placed or ():
        assert [rank for bundle in bundles for rank in bundle.ranks] == list(range(plan.num_ranks))
        for bundle in bundles:
            assert len(bundle.gpus) == len(bundle.ranks) == tp
            assert set(bundle.gpus) <= set(by_name[bundle.node].free_gpus)
            assert bundle.rank_bytes <= by_name[bundle.node].gpu.usable_bytes
    given_out = Counter((bundle.node, gpu) for bundles in placed or () for bundle in bundles for gpu in bundle.gpus)
    assert set(given_out.values()) <= {1}


def can_be_placed(tp: int, sizes: Sequence[int], nodes: list[GpuNode]) -> bool:
    """Whether any order of slots has room, by trying them all."""
    slots = [node.gpu.usable_bytes for node in nodes for _ in range(len(node.free_gpus) // tp)]
    return any(
        all(size * GIB <= slot for size, slot in zip(sizes, order, strict=True))
        for order in permutations(slots, len(sizes))
    )


@given(nodes=NODES, tp=st.integers(1, 4), stages=st.lists(st.integers(1, 75), min_size=1, max_size=3))
def test_where_there_is_any_place_it_is_found(nodes: list[GpuNode], tp: int, stages: list[int]) -> None:
    plan = ParallelPlan(tp=tp, pp=len(stages))

    placed = place_replicas(plan, [a_stage(gib) for gib in stages], nodes[:3])

    assert (placed is not None) == can_be_placed(tp, stages, nodes[:3])


def test_replicas_go_to_different_nodes() -> None:
    placed = place_replicas(ParallelPlan(tp=2), [a_stage(1)], [a_node("a", 4), a_node("b", 4)], num_replicas=3)

    assert placed is not None
    assert [bundles[0].node for bundles in placed] == ["a", "b", "a"]


def test_stages_of_a_replica_share_a_node_that_has_room_for_all() -> None:
    nodes = [a_node("small", 2), a_node("large", 8), a_node("right", 4)]

    placed = place_replicas(ParallelPlan(tp=2, pp=2), [a_stage(1)] * 2, nodes)

    assert placed is not None
    assert [bundle.node for bundle in placed[0]] == ["right", "right"]


def test_stages_that_need_two_nodes_take_two_of_one_domain() -> None:
    nodes = [a_node("a", 2, domain="x"), a_node("b", 2, domain="y"), a_node("c", 2, domain="y")]

    placed = place_replicas(ParallelPlan(tp=2, pp=2), [a_stage(1)] * 2, nodes)

    assert placed is not None
    assert [bundle.node for bundle in placed[0]] == ["b", "c"]


def test_only_where_no_domain_has_room_a_replica_is_spread_over_two() -> None:
    nodes = [a_node("a", 2, domain="x"), a_node("b", 2, domain="y")]

    placed = place_replicas(ParallelPlan(tp=2, pp=2), [a_stage(1)] * 2, nodes)

    assert placed is not None
    assert [bundle.node for bundle in placed[0]] == ["a", "b"]


def test_neighbouring_stages_lie_beside_each_other_though_some_are_lighter() -> None:
    stages = [a_stage(gib) for gib in (3, 1, 2, 5)]

    placed = place_replicas(ParallelPlan(tp=2, pp=4), stages, [a_node("a", 4), a_node("b", 4)])

    assert placed is not None
    assert [bundle.node for bundle in placed[0]] == ["a", "a", "b", "b"]


def test_a_light_stage_leaves_the_large_node_to_those_that_need_it() -> None:
    stages = [a_stage(gib) for gib in (1, 70, 60)]

    placed = place_replicas(ParallelPlan(pp=3), stages, [a_node("large", 2), a_node("small", 1, memory_gib=20)])

    assert placed is not None
    assert [bundle.node for bundle in placed[0]] == ["small", "large", "large"]
