"""One process's metrics, health and further pages: served over HTTP and announced to the controller."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from shardline_cluster.fleet.exporters import Exporter, ExporterKind, ExporterList, announced
from shardline_cluster.telemetry.metrics_server import Health, MetricsServer
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig

log = logging.getLogger(__name__)


@asynccontextmanager
async def exporting(
    kind: ExporterKind,
    registry: CollectorRegistry,
    *,
    config: TelemetryConfig,
    exporters: ExporterList,
    health: Callable[[], Health],
    pages: Mapping[str, Callable[[], str]] | None = None,
) -> AsyncIterator[str]:
    """Serves for as long as the block lasts; gives `host:port`. `health` and `pages` are called in other threads.

    Raises:
        ConfigurationError: this machine has no such address.
    """
    server = MetricsServer(registry, health=health, pages=pages)
    address = server.start(config)
    log.info("metrics: http://%s/metrics", address)
    try:
        async with announced(Exporter(kind=kind, address=address), exporters):
            yield address
    finally:
        server.close()
