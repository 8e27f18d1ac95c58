"""Reads what a registry, or a page of `/metrics`, tells."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def readings(source: CollectorRegistry | str) -> "Readings":
    """Of a registry, or of a page's text."""
    families = source.collect() if isinstance(source, CollectorRegistry) else text_string_to_metric_families(source)
    return Readings(families)


class Readings:
    """Every sample of one moment."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._values: Values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample of this name that has these labels; None where there is none."""
        wanted = frozenset(labels.items())
        found = [value for (known, have), value in self._values.items() if known == name and wanted <= have]
        assert len(found) <= 1, f"{name} {labels} is told {len(found)} times"
        return found[0] if found else None

    @property
    def names(self) -> set[str]:
        """Of all samples."""
        return {name for name, _ in self._values}
