"""A process's pages over HTTP: metrics, health with its status, and nothing else."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.telemetry.metrics_server import Health, MetricsServer, host_and_port
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig


@contextmanager
def _served(
    registry: CollectorRegistry | None = None, *, health: Callable[[], Health] = Health, port: int = 0
) -> Iterator[str]:
    pages = {"/targets": lambda: "[]"}
    server = MetricsServer(registry or CollectorRegistry(), health=health, pages=pages)
    try:
        yield server.start(TelemetryConfig(metrics_port=port))
    finally:
        server.close()


def _get(url: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{url}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_metrics_come_in_the_format_that_a_scraper_asks_for() -> None:
    registry = CollectorRegistry()
    Counter("answers", "text", registry=registry).inc(42)

    with _served(registry) as address:
        plain = _get(f"{address}/metrics?name=any")
        open_metrics = _get(f"{address}/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert (plain[0], plain[1].partition(";")[0]) == (200, "text/plain")
    assert "answers_total 42.0" in plain[2]
    assert open_metrics[1].startswith("application/openmetrics-text")
    assert open_metrics[2].endswith("# EOF\n")


def test_health_tells_the_truth_of_the_moment() -> None:
    states = iter([Health(details={"state": "READY"}), Health("the engine is wedged")])

    with _served(health=lambda: next(states)) as address:
        well, ill = _get(f"{address}/health"), _get(f"{address}/health")

    assert (well[0], json.loads(well[2])) == (200, {"status": "ok", "state": "READY"})
    assert (ill[0], json.loads(ill[2])) == (503, {"status": "failing", "reason": "the engine is wedged"})


def test_further_pages_are_json_and_an_unknown_one_names_those_there_are() -> None:
    with _served() as address:
        targets, unknown = _get(f"{address}/targets"), _get(f"{address}/secrets")

    assert targets == (200, "application/json", "[]")
    assert unknown[0] == 404
    assert "/metrics, /health, /targets" in unknown[2]


def test_a_port_that_is_taken_costs_nobody_his_models() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]

        with _served(port=taken) as address:
            status, _, _ = _get(f"{address}/health")

    assert status == 200
    assert address != f"127.0.0.1:{taken}"


def test_a_host_that_this_machine_has_not_is_refused_with_the_flag_that_names_it() -> None:
    server = MetricsServer(CollectorRegistry(), health=Health)

    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1.*--metrics-host"):
        server.start(TelemetryConfig(metrics_host="192.0.2.1"))


def test_addresses_are_written_as_urls_have_them() -> None:
    assert host_and_port("::1", 9090) == "[::1]:9090"
    assert host_and_port("10.0.0.1", 9090) == "10.0.0.1:9090"
    assert TelemetryConfig(metrics_host="0.0.0.0").told_host == socket.gethostname()
