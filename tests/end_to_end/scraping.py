"""Reads a served cluster's metrics and health as Prometheus and people do."""

import json
import re
import urllib.error
import urllib.request

from tests.cluster.telemetry.readings import Readings, readings
from tests.end_to_end.served_cluster import ServedCluster


def page(address: str, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def controller_address(cluster: ServedCluster) -> str:
    """As `serve` printed it."""
    found = re.search(r"^metrics: http://([^/]+)/metrics", cluster.log, re.MULTILINE)
    assert found, cluster.log
    return found.group(1)


def targets(cluster: ServedCluster) -> dict[str, list[str]]:
    """Addresses by kind of process, as the controller tells Prometheus."""
    groups = json.loads(page(controller_address(cluster), "/targets")[1])
    return {group["labels"]["process"]: group["targets"] for group in groups}


def scrape(address: str) -> Readings:
    """All that a process tells."""
    status, text = page(address, "/metrics")
    assert status == 200
    return readings(text)
