"""A histogram for what happens with every token: plain additions, read when somebody scrapes.

prometheus_client's own takes a lock and looks labels up for each value. One thread writes here; a scrape in another one
may see a value's count a moment before its sum.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric


class TokenSeries:
    """One series: counts for each bucket, and the sum of all values."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Takes a value that came `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    @property
    def total(self) -> float:
        """Sum of all values."""
        return self._sum

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it), as Prometheus has them."""
        names = [*map(str, self._bounds), "+Inf"]
        running, told = 0, []
        for name, count in zip(names, list(self._counts), strict=True):
            running += count
            told.append((name, float(running)))
        return told


class TokenHistogram:
    """A family of such series, one for each set of label values."""

    def __init__(
        self,
        name: str,
        documentation: str,
        *,
        registry: CollectorRegistry,
        labels: Sequence[str],
        bounds: Sequence[float],
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._bounds = tuple(float(bound) for bound in bounds)
        self._series: dict[tuple[str, ...], TokenSeries] = {}
        registry.register(self)

    def series(self, *values: str) -> TokenSeries:
        """The series of these label values; keep it where many values come."""
        return self._series.setdefault(values, TokenSeries(self._bounds))

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        family = self._family()
        for values, series in list(self._series.items()):
            family.add_metric(values, series.buckets(), series.total)
        return (family,)

    def describe(self) -> Iterable[Metric]:
        """For the registry: names without values."""
        return (self._family(),)

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
