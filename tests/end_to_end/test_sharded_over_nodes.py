"""A replica whose ranks lie on several nodes of a Ray cluster: stages on two of them, tensor-parallel ranks inside.

A machine and Ray's head are lost in the middle of answers. All answers end, with the tokens of an undisturbed run, in a
smaller shape while there is no room for the whole one. Ranks that die or hang are chaos's (test_broken_gangs).
"""

from collections.abc import Iterator

import pytest

pytest.importorskip("ray")

from shardline import AsyncClient
from tests.end_to_end.gang_faults import (
    REPLAN_AFTER_S,
    answers,
    broken_answers,
    ready_shapes,
    replicas,
    sharded_cluster,
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


async def test_a_machine_that_stays_away_leaves_a_smaller_shape_until_it_is_back(
    nodes: RayNodes, cluster: ServedCluster
) -> None:
    async with AsyncClient(cluster.endpoint, patience_s=120) as client:
        expected = [heard.ids for heard in await answers(client)]
        ranks = nodes.ranks_by_node()
        machine = nodes.node_without_a_leader()
        lost = await broken_answers(client, cluster, machine.kill_raylet)
        (smaller,) = replicas(cluster)
        nodes.add(machine.ip, num_gpus=2)
        meanwhile = []
        while ready_shapes(cluster) != ["tp=2 pp=2"]:
            meanwhile += [heard.ids for heard in await answers(client)]
        afterwards = [heard.ids for heard in await answers(client)]

    print(f"a lost machine: {lost.told}")
    assert [heard.ids for heard in lost.answers] == expected
    assert sorted(ranks.values()) == [2, 2], "two stages, each on a node of its own"
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

    print(f"a killed head: {head.told}")
    assert [heard.ids for heard in head.answers] == expected
    assert head.detected_s is None
    assert head.longest_gap_s < HEAD_GAP_S
    assert nodes.leaders() == leaders
