"""A real cluster, observed from outside: metrics of all its processes, and health that tells the truth."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from shardline import Client, Tokens
from shardline.errors import ShardlineError
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


PROMPT = "SENTINEL-of-a-prompt-that-nobody-may-read"
ANSWER = "SENTINEL-of-an-answer"
KEY = "SENTINEL-of-a-key-0123456789"


def _logs(cluster: ServedCluster) -> dict[str, list[str]]:
    """All that every process has written so far, line by line."""
    (folder,) = re.findall(r"logs: (.*), until this ends", cluster.log)
    root = Path(folder).parent
    files = [*root.glob("logs/*.log"), *root.glob("replicas/*/output.log")]
    return {str(file.relative_to(root)): file.read_text().splitlines() for file in files}


def _replica_in(files: dict[str, list[str]]) -> str:
    """The replica's name, as its own lines tell it."""
    (name,) = {json.loads(line)["replica"] for file, lines in files.items() if "replicas" in file for line in lines}
    return str(name)


def test_logs_are_json_with_the_request_they_are_about_and_without_a_word_of_clients_or_of_secrets() -> None:
    replay = ("--simulated-tokens", "replay", "--simulated-replay-text", ANSWER)
    flags = (*SIMULATED, *replay, "--log-format", "json", "--log-level", "debug")
    with served_cluster(*flags, environment={"SHARDLINE_API_KEY": KEY}) as cluster:
        with Client(cluster.endpoint, api_key=KEY) as client:
            stream = client.stream(PROMPT, max_tokens=2_000)
            first = next(event for event in stream if isinstance(event, Tokens))
            stream.cancel()
            client.generate(PROMPT, max_tokens=3, stop=["SENTINEL-of-a-stop"])
            with pytest.raises(ShardlineError):
                client.generate(PROMPT, model="SENTINEL-of-a-model")
        cluster.wait_until(
            lambda: any(first.request_id in line for lines in _logs(cluster).values() for line in lines), "the line"
        )
        files, said = _logs(cluster), cluster.log.splitlines()

    told = [json.loads(line) for lines in (*files.values(), said) for line in lines]
    about = [line for line in told if line.get("request_id") == first.request_id]
    assert {line["process"] for line in told if "process" in line} >= {"serve", "router", "controller", "replica"}
    assert all({"time", "level", "message"} <= line.keys() for line in told if "port" not in line)
    assert about
    assert {line["replica"] for line in about if line["process"] == "replica"} == {_replica_in(files)}
    assert {line["process"] for line in about} == {"router", "replica"}
    assert {line.get("model") for line in about} >= {MODEL}
    assert "SENTINEL" not in "".join(line for lines in (*files.values(), said) for line in lines)
