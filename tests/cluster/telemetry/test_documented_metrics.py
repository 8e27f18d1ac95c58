"""docs/observability.md names every metric that processes tell, as they tell it, and no other."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from shardline_cluster.controller.fleet_metrics import LANE_LABELS, FleetMetrics
from shardline_cluster.replica.replica_metrics import REPLICA_LABELS, ReplicaMetrics
from shardline_cluster.router.router_metrics import LaneReadings, RouterMetrics
from shardline_cluster.telemetry.read_values import ReadValue
from shardline_cluster.telemetry.token_histogram import TokenHistogram

PAGE = Path(__file__).parents[3] / "docs" / "observability.md"


def _registries() -> dict[str, CollectorRegistry]:
    router, replica, controller = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    RouterMetrics(router)
    LaneReadings(router, dict)
    ReplicaMetrics(replica, dict.fromkeys(REPLICA_LABELS, ""))
    FleetMetrics(controller)
    return {"Router": router, "Replica": replica, "Controller": controller}


def _families(registry: CollectorRegistry) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Every family with its labels' names, which the library keeps to itself."""
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            labels = tuple(collector._labelnames)
        elif isinstance(collector, TokenHistogram | ReadValue):
            labels = collector._labels
        else:
            labels = LANE_LABELS if isinstance(collector, FleetMetrics) else ("lane",)
        for family in collector.describe():  # type: ignore[attr-defined]
            yield family, labels


def _rows(registry: CollectorRegistry) -> Iterable[str]:
    for family, labels in sorted(_families(registry), key=lambda found: found[0].name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |"


def test_the_page_has_a_row_for_each_metric_of_each_process_and_no_other() -> None:
    text = PAGE.read_text()

    for process, registry in _registries().items():
        section = re.search(rf"### {process}\n(.*?)(?=\n##)", text, re.DOTALL)
        assert section, f"the page has no section on the {process.lower()}"
        told = [line for line in section.group(1).splitlines() if line.startswith("| `")]
        assert told == list(_rows(registry)), "\n".join(["these rows belong there:", *_rows(registry)])


def test_each_name_is_told_by_one_kind_of_process_so_that_sums_count_nothing_twice() -> None:
    names = [family.name for registry in _registries().values() for family, _ in _families(registry)]

    assert len(names) == len(set(names))
