"""What is read of a cluster, from twins in memory."""

import pytest

from shardline_cluster.cli.cluster_status import observe
from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.replica_state import ReplicaState
from tests.cluster.cli.example_cluster import ExampleCluster, working_cluster


async def test_deployments_their_lanes_and_their_replicas_are_read() -> None:
    cluster = await working_cluster()

    (deployment,) = (await observe(cluster.store, cluster.open_lane)).deployments

    assert (deployment.name, deployment.model) == ("smollm2", "smollm2:135m")
    assert (deployment.ready_replicas, deployment.desired_replicas) == (1, 2)
    lane = deployment.lane
    assert (lane.waiting_requests, lane.running_requests, lane.num_routers) == (2, 1, 1)
    assert lane.oldest_wait_s == 91.0
    assert lane.hold_left_s is None
    ready, loading = lane.replicas
    assert (ready.replica, ready.state, ready.num_requests) == ("smollm2-0", "READY", 1)
    assert (ready.host, ready.pid, ready.lease_left_s) == ("node-1", 4711, 5.0)
    assert (loading.replica, loading.state, loading.num_requests) == ("smollm2-1", "LOADING", 0)


async def test_deployments_come_by_name() -> None:
    cluster = ExampleCluster()
    await cluster.deploy("b", lane="b")
    await cluster.deploy("a", lane="a")

    status = await observe(cluster.store, cluster.open_lane)

    assert [deployment.name for deployment in status.deployments] == ["a", "b"]


async def test_a_lane_that_was_just_made_is_on_hold() -> None:
    cluster = ExampleCluster()
    await cluster.deploy()
    await cluster.start_router()
    cluster.now_ms += 2_000

    (deployment,) = (await observe(cluster.store, cluster.open_lane)).deployments

    assert deployment.lane.hold_left_s == 4.0


async def test_a_replica_of_another_version_is_shown_by_its_incarnation() -> None:
    cluster = ExampleCluster()
    await cluster.deploy()
    await cluster.start_replica("smollm2-0", ReplicaState.READY, status='{"words": "of the future"}')

    (deployment,) = (await observe(cluster.store, cluster.open_lane)).deployments

    (replica,) = deployment.lane.replicas
    assert (replica.replica, replica.state) == ("leader-smollm2-0", "UNKNOWN")
    assert deployment.ready_replicas == 0


async def test_a_queue_that_does_not_answer_is_an_error() -> None:
    cluster = await working_cluster()
    cluster.server.go_down()

    with pytest.raises(QueueUnavailableError):
        await observe(cluster.store, cluster.open_lane)
