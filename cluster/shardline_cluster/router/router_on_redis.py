"""A router that keeps everything in Redis: its parts, put together and closed in the reverse order."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.access.redis_rate_limiter import RedisRateLimiter
from shardline_cluster.fleet.deployment_plan import plan_deployment
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.exporters import ExporterKind
from shardline_cluster.fleet.process_exporter import exporting
from shardline_cluster.fleet.redis_exporters import RedisExporterList
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.fleet.redis_record_store import RedisRecordStore
from shardline_cluster.queue.counted_lanes import CountedLanes
from shardline_cluster.queue.lane_names import keys_key
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.router.admin.administration import Administration
from shardline_cluster.router.admin.deployment_administration import DeploymentAdministration
from shardline_cluster.router.admin.key_administration import KeyAdministration
from shardline_cluster.router.admin.usage_administration import UsageAdministration
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_metrics import LaneReadings, RouterMetrics
from shardline_cluster.router.router_server import RouterServer
from shardline_cluster.router.router_telemetry import RouterTelemetry
from shardline_cluster.router.text_loading import load_deployed_text
from shardline_cluster.telemetry.tracer_choice import open_tracer

STOP_LIMIT_S = 9.0  # of the ten that are promised


@asynccontextmanager
async def router_on_redis(config: RouterConfig, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """A router that serves for as long as the block lasts; gives its port. Redis may be away.

    Args:
        config: of the router.
        environment: whose OTEL_* variables say where traces go.

    Raises:
        ConfigurationError: an address cannot be had, the URL of Redis is none, or a file of keys or TLS is no good.
        TimeoutError: at the end, where streams did not let go in time; everything is closed none the less.
    """
    async with AsyncExitStack() as open_parts:
        parts = _Parts(config, open_parts)
        telemetry = parts.telemetry(environment)
        directory = parts.directory()
        server = RouterServer(
            config,
            directory,
            parts.keyring.gate,
            administration=parts.administration(directory),
            limiter=parts.limiter,
            telemetry=telemetry,
        )
        LaneReadings(parts.registry, directory.num_attaches)
        # The last to go: whoever looks at a router that is stopping sees it.
        await open_parts.enter_async_context(parts.exporting(server))
        await parts.keyring.start()
        open_parts.push_async_callback(_stop, server)
        yield await server.start()


class _Parts:
    """What a router stands on. All that is made here is closed with the stack."""

    def __init__(self, config: RouterConfig, open_parts: AsyncExitStack) -> None:
        """Reads the keys file, and connects to nothing yet."""
        self._config = config
        self._open_parts = open_parts
        url, prefix, call_timeout_s = config.redis_url, config.prefix, config.terms.call_timeout_ms / 1000
        keys = RedisRecordStore(url, key=keys_key(prefix), kind=ApiKey, call_timeout_s=call_timeout_s)
        self.registry = CollectorRegistry()
        self.keyring = Keyring(config.access, keys)
        self.deployments = deployments_on_redis(url, prefix=prefix, call_timeout_s=call_timeout_s)
        self.reports = RedisFleetReportStore(url, prefix=prefix)
        self.limiter = RedisRateLimiter(url, prefix=prefix, call_timeout_s=call_timeout_s)
        self.counted = CountedLanes(url, prefix=prefix, call_timeout_s=call_timeout_s)
        for part in (self.keyring, self.deployments, self.reports, self.limiter, self.counted):
            open_parts.push_async_callback(part.close)

    def telemetry(self, environment: Mapping[str, str]) -> RouterTelemetry:
        tracer = open_tracer("router", environment)
        self._open_parts.callback(tracer.close)
        return RouterTelemetry(RouterMetrics(self.registry), tracer)

    def directory(self) -> ModelDirectory:
        return ModelDirectory(
            self.deployments,
            open_queue=self.open_queue,
            load=lambda deployment: load_deployed_text(deployment, Path(self._config.cache_folder)),
            incarnation=f"router-{secrets.token_hex(8)}",
        )

    def administration(self, directory: ModelDirectory) -> Administration:
        cache_folder = Path(self._config.cache_folder)
        deployments = DeploymentAdministration(
            self.deployments,
            self.reports,
            open_queue=self.open_queue,
            plan=lambda wanted, say: plan_deployment(wanted, cache_folder=cache_folder, say=say),
            notice=directory.refresh,
            cluster=self._config.cluster,
        )
        self._open_parts.push_async_callback(deployments.close)
        usage = UsageAdministration(self.counted.names, self.open_queue)
        return Administration(deployments=deployments, keys=KeyAdministration(self.keyring), usage=usage)

    def exporting(self, server: RouterServer) -> AbstractAsyncContextManager[str]:
        return exporting(
            ExporterKind.ROUTER,
            self.registry,
            config=self._config.telemetry,
            exporters=RedisExporterList(self._config.redis_url, prefix=self._config.prefix),
            health=server.health,
        )

    def open_queue(self, lane: str) -> RedisRequestQueue:
        return RedisRequestQueue(self._config.redis_url, lane, prefix=self._config.prefix, terms=self._config.terms)


async def _stop(server: RouterServer) -> None:
    async with asyncio.timeout(STOP_LIMIT_S):
        await server.stop()
