"""All exporters of a cluster, as the controller tells them to Prometheus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry

from shardline_cluster.controller.controller import Controller
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.errors import ShardlineError
from shardline_cluster.fleet.exporters import ExporterKind, ExporterList, scrape_targets
from shardline_cluster.fleet.process_exporter import exporting
from shardline_cluster.fleet.redis_exporters import RedisExporterList

TARGETS_PAGE = "/targets"
PERIOD_S = 2.0


class ScrapeTargets:
    """Reads the list again and again; while Redis is away what was known last counts on."""

    def __init__(self, exporters: ExporterList) -> None:
        self._exporters = exporters
        self._page = scrape_targets(())

    def page(self) -> str:
        """For Prometheus's http_sd_configs; may be called in any thread."""
        return self._page

    async def look(self) -> None:
        """Reads the list once."""
        with suppress(ShardlineError):
            self._page = scrape_targets(await self._exporters.all())

    async def keep_looking(self) -> None:
        """Reads it for ever."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)


@asynccontextmanager
async def controller_exporting(
    controller: Controller, registry: CollectorRegistry, config: ControllerConfig
) -> AsyncIterator[str]:
    """Serves the controller's metrics, its health and everybody's addresses for as long as the block lasts.

    Raises:
        ConfigurationError: this machine has no such address.
    """
    exporters = RedisExporterList(config.redis_url, prefix=config.prefix)
    targets = ScrapeTargets(exporters)
    async with exporting(
        ExporterKind.CONTROLLER,
        registry,
        config=config.telemetry,
        exporters=exporters,
        health=controller.health,
        pages={TARGETS_PAGE: targets.page},
    ) as address:
        looking = asyncio.create_task(targets.keep_looking())
        try:
            yield address
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
