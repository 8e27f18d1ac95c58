"""A replica whose ranks lie on several nodes of a Ray cluster: stages on two of them, tensor-parallel ranks inside.

Ranks, machines and Ray's head are lost in the middle of answers. All answers end, with the tokens of an undisturbed run:
in the same shape where there is room for it, in a smaller one while there is not.
"""

from collections.abc import Iterator

import pytest

pytest.importorskip("ray")

from shardline import AsyncClient
from tests.end_to_end.gang_faults import (
    MAX_TOKENS,
    REPLAN_AFTER_S,
    FaultReport,
    answers,
    broken_answers,
    kill,
    replicas,
    sharded_cluster,
    stop,
)
from tests.end_to_end.ray_nodes import RayNodes, running_ray_nodes
from tests.end_to_end.served_cluster import ServedCluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.process,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

DETECTED_WITHIN_S = 10.0  # of a death, or of the end of a limit: silence is 5 s
HEAD_GAP_S = 2.0  # the lease of these clusters: a pause beyond it would be a reclaim


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with running_ray_nodes(2, 2, 1) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(nodes: RayNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedCluster]:
    with sharded_cluster(nodes, tmp_path_factory.mktemp("model"), tp=2, pp=2) as served:
        yield served


def _shapes(cluster: ServedCluster) -> list[object]:
    return [replica["shape"] for replica in replicas(cluster) if replica["state"] == "READY"]


def _judge(what: str, report: FaultReport, expected: list[dict[int, list[int]]]) -> None:
    times = {"detected": report.detected_s, "longest gap": report.longest_gap_s, "served again": report.served_s}
    print(f"{what}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items() if seconds is not None))
    assert [heard.ids for heard in report.answers] == expected, what
    assert all(len(heard.ids[0]) == MAX_TOKENS for heard in report.answers), what


async def test_ranks_die_and_stop_in_the_middle_of_answers(nodes: RayNodes, cluster: ServedCluster) -> None:
    async with AsyncClient(cluster.endpoint, patience_s=120) as client:
        expected = [heard.ids for heard in await answers(client)]
        ranks = nodes.ranks_by_node()
        killed = await broken_answers(client, cluster, lambda: kill(nodes.ranks()[-1]))
        stopped = await broken_answers(client, cluster, lambda: stop(nodes.ranks()[0]))

    assert sorted(ranks.values()) == [2, 2], "two stages, each on a node of its own"
    for what, report in (("a killed rank", killed), ("a stopped rank", stopped)):
        _judge(what, report, expected)
        assert report.detected_s is not None and report.detected_s < DETECTED_WITHIN_S
    assert _shapes(cluster) == ["tp=2 pp=2"]


async def test_a_machine_that_stays_away_leaves_a_smaller_shape_until_it_is_back(
    nodes: RayNodes, cluster: ServedCluster
) -> None:
    async with AsyncClient(cluster.endpoint, patience_s=120) as client:
        expected = [heard.ids for heard in await answers(client)]
        machine = nodes.node_without_a_leader()
        lost = await broken_answers(client, cluster, machine.kill_raylet)
        (smaller,) = replicas(cluster)
        nodes.add(machine.ip, num_gpus=2)
        meanwhile = []
        while _shapes(cluster) != ["tp=2 pp=2"]:
            meanwhile += [heard.ids for heard in await answers(client)]
        afterwards = [heard.ids for heard in await answers(client)]

    _judge("a lost machine", lost, expected)
    assert lost.detected_s is not None and lost.detected_s < DETECTED_WITHIN_S
    assert lost.served_s is not None and lost.served_s > REPLAN_AFTER_S
    assert smaller["shape"] == "tp=1 pp=3"
    assert "re-planned from tp=2 pp=2: tp=2 pp=2 takes 4 x GPU, but there are" in str(smaller["reason"])
    assert meanwhile == expected * (len(meanwhile) // len(expected)), "draining hands answers over whole"
    assert afterwards == expected


async def test_the_head_dies_and_nobody_notices(nodes: RayNodes, cluster: ServedCluster) -> None:
    async with AsyncClient(cluster.endpoint, patience_s=120) as client:
        expected = [heard.ids for heard in await answers(client)]
        leaders = nodes.leaders()
        head = await broken_answers(client, cluster, nodes.kill_head)
        nodes.start_head()

    _judge("a killed head", head, expected)
    assert head.detected_s is None
    assert head.longest_gap_s < HEAD_GAP_S
    assert nodes.leaders() == leaders
