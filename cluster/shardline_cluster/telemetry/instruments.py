"""Makes one process's instruments, all in one registry and all with the same prefix and constant labels."""

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from shardline_cluster.telemetry.read_values import Family, ReadValue
from shardline_cluster.telemetry.token_histogram import TokenHistogram

PREFIX = "shardline_"


class Instruments:
    """Labels: first the constant ones, whose values come with every series, then each family's own."""

    def __init__(self, registry: CollectorRegistry, constant: Mapping[str, str] | None = None) -> None:
        self._registry = registry
        self._names = tuple(constant or {})
        self.constant = tuple((constant or {}).values())  # label values, to be given first

    def counter(self, name: str, documentation: str, *labels: str) -> Counter:
        """Something that only grows; its series are called `NAME_total`."""
        return Counter(PREFIX + name, documentation, self._all(labels), registry=self._registry)

    def gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        """A value of now."""
        return Gauge(PREFIX + name, documentation, self._all(labels), registry=self._registry)

    def histogram(self, name: str, documentation: str, *labels: str, bounds: Sequence[float]) -> Histogram:
        """Values by size, some for each request."""
        return Histogram(
            PREFIX + name, documentation, self._all(labels), buckets=tuple(bounds), registry=self._registry
        )

    def token_histogram(self, name: str, documentation: str, *labels: str, bounds: Sequence[float]) -> TokenHistogram:
        """Values by size, some for each token or step."""
        return TokenHistogram(
            PREFIX + name, documentation, registry=self._registry, labels=self._all(labels), bounds=bounds
        )

    def read_counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Something that only grows, and is read when somebody scrapes."""
        self._add_read(CounterMetricFamily, name, documentation, read)

    def read_gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A value of now that is read when somebody scrapes."""
        self._add_read(GaugeMetricFamily, name, documentation, read)

    def _add_read(self, family: Family, name: str, documentation: str, read: Callable[[], float]) -> None:
        ReadValue(
            family,
            PREFIX + name,
            documentation,
            registry=self._registry,
            labels=self._names,
            values=self.constant,
            read=read,
        )

    def _all(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return (*self._names, *labels)
