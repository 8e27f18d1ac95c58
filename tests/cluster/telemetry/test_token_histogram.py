"""A token histogram counts as Prometheus's own does."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shardline_cluster.telemetry.token_histogram import TokenHistogram

BOUNDS = (0.1, 0.5, 2.0)
VALUES = (0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 3.0)


def _told(registry: CollectorRegistry) -> set[str]:
    return {line for line in generate_latest(registry).decode().splitlines() if "_created" not in line}


def test_it_tells_the_same_as_prometheus_clients_own() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("h", "text", ["model"], buckets=BOUNDS, registry=theirs)
    series = TokenHistogram("h", "text", registry=ours, labels=["model"], bounds=BOUNDS).series("m")

    for value in VALUES:
        histogram.labels("m").observe(value)
        series.observe(value)

    assert _told(ours) == _told(theirs)


def test_a_value_that_came_several_times_counts_as_often() -> None:
    once, often = CollectorRegistry(), CollectorRegistry()
    single = TokenHistogram("h", "text", registry=once, labels=[], bounds=BOUNDS).series()
    counted = TokenHistogram("h", "text", registry=often, labels=[], bounds=BOUNDS).series()

    for _ in range(3):
        single.observe(0.25)
    counted.observe(0.25, 3)

    assert _told(once) == _told(often)


def test_a_series_exists_with_zeros_before_its_first_value() -> None:
    registry = CollectorRegistry()
    TokenHistogram("h", "text", registry=registry, labels=["model"], bounds=BOUNDS).series("m")

    assert 'h_count{model="m"} 0.0' in _told(registry)
