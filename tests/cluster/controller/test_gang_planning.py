"""In which shape a replica starts: in full where there is room, in a smaller one where that has long been missing."""

import pytest

from shardline_cluster.controller.gang_planning import ReplanTimes, fits_in_full, plan_gang, wants_slots
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.gang import Gang, RankBundle
from shardline_cluster.planning.rank_nodes import RankNode
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.cluster.controller.fleets import deployment
from tests.cluster.controller.rank_clusters import a_node, sharded, sized


def _planned(wanted: Deployment, *nodes: RankNode, may_shrink: bool = False, other: str = "") -> Gang | str:
    return plan_gang(wanted, nodes, others={other: 1}, may_shrink=may_shrink)


def _plan(gang: Gang | str) -> str:
    assert isinstance(gang, Gang), gang
    return str(gang.plan)


def test_ranks_without_a_resource_are_as_many_as_was_asked_for_and_auto_is_one() -> None:
    asked = sharded(tp=2, pp=None, rank_resource="")

    assert not wants_slots(asked)
    assert _planned(asked) == Gang(plan=ParallelPlan(tp=2))


def test_one_rank_waits_for_its_gpu_in_the_launcher_and_needs_no_planning() -> None:
    assert not wants_slots(deployment(device="cuda"))


def test_tensor_parallel_ranks_share_a_node_and_stages_may_lie_on_several() -> None:
    gang = _planned(sharded(tp=2, pp=2), a_node("1", 3), a_node("2", 2))

    assert gang == Gang(
        plan=ParallelPlan(tp=2, pp=2),
        bundles=(
            RankBundle(node="1", host="10.0.0.1", ranks=(0, 1)),
            RankBundle(node="2", host="10.0.0.2", ranks=(2, 3)),
        ),
    )
    assert isinstance(gang, Gang)
    assert gang.slots == {"1": 2, "2": 2}


def test_replicas_of_a_model_avoid_each_other() -> None:
    gang = _planned(sharded(tp=2), a_node("1", 2), a_node("2", 2), other="1")

    assert isinstance(gang, Gang)
    assert gang.slots == {"2": 2}


def test_nodes_of_another_resource_do_not_count() -> None:
    told = _planned(sharded(tp=2, rank_resource="slots"), a_node("1", 8))

    assert told == "tp=2 takes 2 x slots, but there are none free"


@pytest.mark.parametrize(
    ("tp", "pp", "free", "smaller"),
    [
        (4, 1, (3,), "tp=3"),
        (4, 1, (2, 1), "tp=1 pp=3"),
        (4, 1, (2, 2), "tp=2 pp=2"),
        (2, 2, (2, 1), "tp=1 pp=3"),
        (1, 4, (1, 1, 1), "tp=1 pp=3"),
        (2, 1, (1,), "tp=1"),
    ],
)
def test_the_largest_shape_that_is_left_comes_nearest(tp: int, pp: int, free: tuple[int, ...], smaller: str) -> None:
    nodes = [a_node(str(number), slots, 4) for number, slots in enumerate(free)]

    patient = _planned(sharded(tp=tp, pp=pp), *nodes)
    gang = _planned(sharded(tp=tp, pp=pp), *nodes, may_shrink=True)

    assert isinstance(patient, str)
    assert _plan(gang) == smaller
    assert isinstance(gang, Gang)
    assert gang.note == f"re-planned from {ParallelPlan(tp=tp, pp=pp)}: {patient}"


def test_who_forbids_a_smaller_shape_waits() -> None:
    told = _planned(sharded(tp=4, replan=False), a_node("1", 3, 4), may_shrink=True)

    assert told == "tp=4 takes 4 x GPU, but there are 3 free on one node"


def test_a_smaller_shape_must_have_the_memory_too() -> None:
    large = sized(sharded(tp=4), "llama-3.3-70b")

    assert _plan(_planned(large, a_node("1", 4))) == "tp=4"
    assert _plan(_planned(large, a_node("1", 3, 4), may_shrink=True)) == "tp=3"
    assert "of a GPU" in str(_planned(sized(sharded(tp=4), "llama-3.1-405b"), a_node("1", 4)))
    told = _planned(sized(sharded(tp=8), "llama-3.1-405b"), a_node("1", 7, 8), may_shrink=True)
    assert told == "tp=8 takes 8 x GPU, but there are 7 free on one node"


def test_a_smaller_shape_is_one_that_the_model_can_have() -> None:
    nine_heads = sized(sharded(tp=9), "smollm2-135m")

    assert _plan(_planned(nine_heads, a_node("1", 8, 9), may_shrink=True)) == "tp=8"


@pytest.mark.parametrize(("gib", "shape"), [(180, "tp=1"), (80, "tp=2"), (45, "tp=4")])
def test_auto_is_the_smallest_that_fits(gib: float, shape: str) -> None:
    assert _plan(_planned(sized(sharded(tp=None), "llama-3.3-70b"), a_node("1", 8, gib=gib))) == shape


def test_auto_says_that_nothing_fits() -> None:
    told = _planned(sized(sharded(tp=None), "llama-3.3-70b"), a_node("1", 2, gib=24))

    assert told == "no shape of tiny fits on 2 free on one node"


def test_room_for_the_full_shape_is_seen() -> None:
    assert fits_in_full(sharded(tp=4), [a_node("1", 4)], others={})
    assert not fits_in_full(sharded(tp=4), [a_node("1", 3)], others={})
    assert not fits_in_full(sharded(tp=None), [a_node("1", 8)], others={}), "auto has no full shape"


def test_periods_are_no_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="missing_s is -1 s; it must be at least 0, and finite"):
        ReplanTimes(missing_s=-1)
