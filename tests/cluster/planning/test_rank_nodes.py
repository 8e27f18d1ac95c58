"""Nodes with slots, as planning sees them."""

from dataclasses import replace

from shardline_cluster.planning.gpu_models import find_gpu
from shardline_cluster.planning.rank_nodes import gpu_nodes, with_back, without
from tests.cluster.controller.rank_clusters import a_node

GIB = 1 << 30


def test_slots_are_taken_and_given_back_within_what_a_node_has() -> None:
    nodes = (a_node("1", 2, 4), a_node("2", 3))

    assert [node.free_slots for node in without(nodes, {"1": 1, "2": 9, "gone": 1})] == [1, 0]
    assert [node.free_slots for node in with_back(nodes, {"1": 1, "2": 1})] == [3, 3]


def test_a_node_without_a_free_slot_is_none_to_planning() -> None:
    assert [node.name for node in gpu_nodes([a_node("1", 0, 4), a_node("2", 1)])] == ["2"]


def test_a_slot_has_the_memory_that_is_told_or_that_of_its_card() -> None:
    told, known = a_node("1", 1, gib=10), replace(a_node("2", 1), slot_bytes=None, accelerator="H100")
    unknown = replace(known, accelerator="A100")

    cards = [node.gpu for node in gpu_nodes([told, known, unknown])]

    assert cards[0].memory_gib == 10
    assert cards[1] == find_gpu("H100-80GB")
    assert cards[2].usable_bytes > 1000 * GIB, "a card that may be either is not judged here"
