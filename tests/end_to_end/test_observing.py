"""A real cluster, observed from outside: metrics of all its processes, and health that tells the truth."""

import os
import signal
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from shardline import Client
from tests.end_to_end.scraping import controller_address, page, scrape, targets
from tests.end_to_end.served_cluster import LOCAL_REPLICA, ServedCluster, served_cluster

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(120)]

SIMULATED = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.01")
MODEL = "simulated"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _all_announced(cluster: ServedCluster, num_replicas: int) -> bool:
    found = {kind: len(addresses) for kind, addresses in targets(cluster).items()}
    return found == {"controller": 1, "router": 2, **({"replica": num_replicas} if num_replicas else {})}


def test_a_cluster_without_replicas_tells_of_its_lane_once_and_of_what_waits_there() -> None:
    with served_cluster(*SIMULATED, "--replicas", "0", "--routers", "2") as cluster:
        cluster.wait_until(lambda: _all_announced(cluster, 0), "the exporters")
        with Client(cluster.endpoint) as client:
            client.submit("wait for a replica", max_tokens=5)
        controller = controller_address(cluster)
        cluster.wait_until(
            lambda: scrape(controller).value("shardline_num_requests_waiting", model_name=MODEL) == 1, "the request"
        )

        told = scrape(controller)
        routers = [scrape(address) for address in targets(cluster)["router"]]
        healths = [page(address, "/health")[0] for addresses in targets(cluster).values() for address in addresses]

    backlog = told.value("shardline_backlog_tokens", model_name=MODEL)
    assert backlog is not None
    assert backlog >= 5
    assert told.value("shardline_desired_replicas", model_name=MODEL) == 0
    assert told.value("shardline_ready_replicas", model_name=MODEL) == 0
    assert told.value("shardline_num_requests_running", model_name=MODEL) == 0
    assert sum(router.value("shardline_requests_accepted_total", model_name=MODEL) or 0 for router in routers) == 1
    assert not [name for router in routers for name in router.names if name in told.names]
    assert healths == [200, 200, 200]


@pytest.mark.slow
def test_a_stopped_replica_is_told_by_health_and_replaced_and_its_request_goes_on() -> None:
    with served_cluster(*SIMULATED, "--routers", "2") as cluster, Client(cluster.endpoint) as client:
        cluster.wait_until(lambda: _all_announced(cluster, 1), "the exporters")
        controller, (replica,) = controller_address(cluster), targets(cluster)["replica"]
        channel = grpc.insecure_channel(cluster.endpoint)
        health: Any = HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=MODEL))
        while next(watch).status != SERVING:
            pass
        whole = client.generate("once", max_tokens=20)
        counted = scrape(replica)

        (wedged,) = set(cluster.pids(LOCAL_REPLICA)) - set(cluster.pids("replica_keeper.py"))
        os.kill(wedged, signal.SIGSTOP)
        stopped_s = time.monotonic()
        stream = client.stream("once more", max_tokens=20)
        statuses = [next(watch).status, next(watch).status]
        took_s = time.monotonic() - stopped_s
        again = stream.result()
        cluster.wait_until(
            lambda: scrape(controller).value("shardline_replica_crashes_total", model_name=MODEL) == 1, "the crash"
        )

        watch.cancel()
        channel.close()
        print(f"serving again {took_s:.1f} s after its only replica was stopped")

    assert len(whole.token_ids) == len(again.token_ids) == 20
    assert statuses == [NOT_SERVING, SERVING]
    assert counted.value("shardline_generation_tokens_total") == 20
    assert counted.value("shardline_request_success_total", finished_reason="length") == 1
    assert counted.value("shardline_request_queue_time_seconds_count") == 1
