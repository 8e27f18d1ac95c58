"""What is read of a cluster, from twins in memory."""

from dataclasses import replace

import pytest

from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.redeployment import redeployed
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from tests.cluster.cli.example_cluster import ExampleCluster, working_cluster
from tests.cluster.fleet.deploying import deploy


async def test_deployments_their_lanes_and_their_replicas_are_read() -> None:
    cluster = await working_cluster()

    (deployment,) = (await cluster.observe()).deployments

    assert (deployment.name, deployment.model) == ("smollm2", "smollm2:135m")
    assert (deployment.ready_replicas, deployment.desired_replicas) == (1, 2)
    lane = deployment.lane
    assert (lane.waiting_requests, lane.running_requests, lane.num_routers) == (2, 1, 1)
    assert lane.oldest_wait_s == 91.0
    assert lane.hold_left_s is None
    ready, loading = deployment.replicas
    assert (ready.replica, ready.state, ready.num_requests) == ("smollm2-0", "READY", 1)
    assert (ready.host, ready.pid, ready.lease_left_s) == ("node-1", 4711, 5.0)
    assert (loading.replica, loading.state, loading.num_requests) == ("smollm2-1", "LOADING", 0)


async def test_a_replica_of_settings_that_were_left_is_told_as_outdated() -> None:
    cluster = ExampleCluster()
    await cluster.deploy()
    (record,) = (await cluster.store.all()).values()
    assert record.value is not None
    for number, settings in enumerate((record.value.settings, "others", "")):
        status = ReplicaStatus(
            deployment="smollm2", replica=f"smollm2-{number}", state=ReplicaState.READY, settings=settings
        )
        await cluster.start_replica(f"smollm2-{number}", ReplicaState.READY, status=to_json(status))

    (deployment,) = (await cluster.observe()).deployments

    assert [replica.is_outdated for replica in deployment.replicas] == [False, True, False]


async def test_a_former_lane_is_shown_while_it_has_work() -> None:
    cluster = await working_cluster()
    (record,) = (await cluster.store.all()).values()
    assert record.value is not None
    renewed = redeployed(record.value, replace(record.value, lane="other"), now_ms=cluster.now_ms)
    await deploy(cluster.store, renewed)

    current, former = (await cluster.observe()).deployments

    assert (current.lane.lane, current.is_former, current.replicas) == ("other", False, ())
    assert (former.lane.lane, former.is_former, former.lane.waiting_requests) == ("smollm2", True, 2)


async def test_deployments_come_by_name() -> None:
    cluster = ExampleCluster()
    await cluster.deploy("b", lane="b")
    await cluster.deploy("a", lane="a")

    status = await cluster.observe()

    assert [deployment.name for deployment in status.deployments] == ["a", "b"]


async def test_a_lane_that_was_just_made_is_on_hold() -> None:
    cluster = ExampleCluster()
    await cluster.deploy()
    await cluster.start_router()
    cluster.now_ms += 2_000

    (deployment,) = (await cluster.observe()).deployments

    assert deployment.lane.hold_left_s == 4.0


async def test_a_replica_of_another_version_is_shown_by_its_incarnation() -> None:
    cluster = ExampleCluster()
    await cluster.deploy()
    await cluster.start_replica("smollm2-0", ReplicaState.READY, status='{"words": "of the future"}')

    (deployment,) = (await cluster.observe()).deployments

    (replica,) = deployment.replicas
    assert (replica.replica, replica.state) == ("leader-smollm2-0", "UNKNOWN")
    assert deployment.ready_replicas == 0


async def test_a_queue_that_does_not_answer_is_an_error() -> None:
    cluster = await working_cluster()
    cluster.server.go_down()

    with pytest.raises(QueueUnavailableError):
        await cluster.observe()


async def test_the_controller_speaks_for_replicas_that_cannot_and_only_for_them() -> None:
    cluster = await working_cluster()
    places = (
        PlaceReport(place="smollm2-0", incarnation="leader-smollm2-0", state=ReplicaState.FAILED, reason="an old one"),
        PlaceReport(place="smollm2-2", state=ReplicaState.FAILED, failures=3, reason="out of memory", next_start_s=4.0),
        PlaceReport(place="smollm2-3", incarnation="x", state=ReplicaState.STARTING),
    )
    report = DeploymentReport(name="smollm2", lane="smollm2", places=places)
    await cluster.reports.put(FleetReport(controller="c", written_at=0.0, deployments=(report,)))

    (deployment,) = (await cluster.observe()).deployments

    assert [(row.replica, row.state) for row in deployment.replicas] == [
        ("smollm2-0", "READY"),
        ("smollm2-1", "LOADING"),
        ("smollm2-2", "FAILED"),
        ("smollm2-3", "STARTING"),
    ]
    failed, starting = deployment.replicas[2:]
    assert (failed.reason, failed.failures, failed.next_start_s) == ("out of memory", 3, 4.0)
    assert (failed.lease_left_s, starting.reason) == (None, "")


async def test_a_replica_that_only_a_last_report_calls_ready_does_not_count() -> None:
    cluster = await working_cluster()
    places = (PlaceReport(place="smollm2-9", incarnation="gone", state=ReplicaState.READY),)
    report = DeploymentReport(name="smollm2", lane="smollm2", places=places)
    await cluster.reports.put(FleetReport(controller="ended", written_at=0.0, deployments=(report,)))

    (deployment,) = (await cluster.observe()).deployments

    assert ("smollm2-9", "READY", None) in [(r.replica, r.state, r.lease_left_s) for r in deployment.replicas]
    assert deployment.ready_replicas == 1


async def test_a_replica_that_has_loaded_tells_how_large_it_is_and_how_long_that_took() -> None:
    cluster = ExampleCluster()
    await cluster.deploy()
    status = ReplicaStatus(
        deployment="smollm2",
        replica="smollm2-0",
        state=ReplicaState.READY,
        details={"weights_bytes": "1000", "kv_cache_bytes": "many"},
        load_s={"imports": 1.5, "weights": 0.25},
    )
    await cluster.start_replica("smollm2-0", ReplicaState.READY, status=to_json(status))

    (deployment,) = (await cluster.observe()).deployments

    (replica,) = deployment.replicas
    assert (replica.weights_bytes, replica.kv_cache_bytes) == (1000, None)
    assert replica.load_s == {"imports": 1.5, "weights": 0.25}
