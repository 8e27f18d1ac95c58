"""Ranks of a replica over several Ray nodes die and hang in the middle of answers: `make chaos` alone plays this.

A death shows at once, by a closed connection; a rank that was stopped shows when it has been silent for 5 s. Either way
the whole gang is ended and started again, and all answers go on from the log.
"""

import os
from pathlib import Path

import pytest

pytest.importorskip("ray")

from shardline import AsyncClient
from tests.end_to_end.gang_faults import answers, broken_answers, kill, ready_shapes, sharded_cluster, stop
from tests.end_to_end.ray_nodes import running_ray_nodes

pytestmark = [
    pytest.mark.ray,
    pytest.mark.process,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif("SHARDLINE_CHAOS_GANGS" not in os.environ, reason="`make chaos` plays it, for minutes"),
]

DETECTED_WITHIN_S = 10.0  # of a death, or of the end of a limit


async def test_leaders_and_ranks_die_and_hang_again_and_again(tmp_path: Path) -> None:
    rounds = int(os.environ["SHARDLINE_CHAOS_GANGS"])
    with running_ray_nodes(2, 2, 2) as nodes, sharded_cluster(nodes, tmp_path, tp=2, pp=2) as cluster:
        async with AsyncClient(cluster.endpoint, patience_s=120) as client:
            expected = [heard.ids for heard in await answers(client)]
            faults = {
                "a killed rank": lambda: kill(nodes.ranks()[-1]),
                "a stopped rank": lambda: stop(nodes.ranks()[0]),
                "a killed leader": lambda: kill(nodes.leaders()[0]),
                "a stopped leader": lambda: stop(nodes.leaders()[0]),
            }
            for _ in range(rounds):
                for what, fault in faults.items():
                    report = await broken_answers(client, cluster, fault)
                    print(f"{what}: {report.told}")

                    assert [heard.ids for heard in report.answers] == expected, what
                    assert report.detected_s is not None and report.detected_s < DETECTED_WITHIN_S, what
        assert ready_shapes(cluster) == ["tp=2 pp=2"]
