"""A router as a process.

    SHARDLINE_ROUTER_CONFIG='{…}' python -m shardline_cluster.router.router_process

When it listens it writes one line to standard output, `{"host": …, "port": …}`; its log goes to standard error. SIGTERM
ends it within ten seconds: it takes no new calls, sends open streams to other routers, and lets their requests live on.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.access.redis_rate_limiter import RedisRateLimiter
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment_plan import plan_deployment
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.exporters import ExporterKind
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.process_exporter import exporting
from shardline_cluster.fleet.redis_exporters import RedisExporterList
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.fleet.redis_record_store import RedisRecordStore
from shardline_cluster.processes.event_loop import new_event_loop
from shardline_cluster.queue.counted_lanes import CountedLanes
from shardline_cluster.queue.lane_names import keys_key
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.router.administration import Administration
from shardline_cluster.router.deployment_administration import DeploymentAdministration
from shardline_cluster.router.key_administration import KeyAdministration
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_metrics import LaneReadings, RouterMetrics
from shardline_cluster.router.router_server import RouterServer
from shardline_cluster.router.router_telemetry import RouterTelemetry
from shardline_cluster.router.text_loading import load_deployed_text
from shardline_cluster.router.usage_administration import UsageAdministration
from shardline_cluster.telemetry.log_output import last_words, set_up_logging
from shardline_cluster.telemetry.tracer_choice import open_tracer

CONFIG_VARIABLE = "SHARDLINE_ROUTER_CONFIG"
STOP_LIMIT_S = 9.0

log = logging.getLogger(__name__)


async def run_router(config: RouterConfig, stop: asyncio.Event, *, listening: Callable[[int], None]) -> None:
    """Serves until `stop` is set. `listening` is told the port.

    Raises:
        ConfigurationError: the address cannot be had, the URL of Redis is none, or the keys file is no good.
    """
    call_timeout_s = config.terms.call_timeout_ms / 1000
    keyring = Keyring(
        config.access,
        RedisRecordStore(config.redis_url, key=keys_key(config.prefix), kind=ApiKey, call_timeout_s=call_timeout_s),
    )
    records = deployments_on_redis(config.redis_url, prefix=config.prefix, call_timeout_s=call_timeout_s)
    limiter = RedisRateLimiter(config.redis_url, prefix=config.prefix, call_timeout_s=call_timeout_s)
    counted = CountedLanes(config.redis_url, prefix=config.prefix, call_timeout_s=call_timeout_s)
    reports = RedisFleetReportStore(config.redis_url, prefix=config.prefix)

    def open_queue(lane: str) -> RedisRequestQueue:
        return RedisRequestQueue(config.redis_url, lane, prefix=config.prefix, terms=config.terms)

    directory = ModelDirectory(
        records,
        open_queue=open_queue,
        load=lambda deployment: load_deployed_text(deployment, Path(config.cache_folder)),
        incarnation=f"router-{secrets.token_hex(8)}",
    )
    deployments = DeploymentAdministration(
        records,
        reports,
        open_queue=open_queue,
        plan=lambda wanted, say: plan_deployment(wanted, cache_folder=Path(config.cache_folder), say=say),
        notice=directory.refresh,
        cluster=config.cluster,
    )
    usage = UsageAdministration(counted.names, open_queue)
    administration = Administration(deployments=deployments, keys=KeyAdministration(keyring), usage=usage)
    registry, tracer = CollectorRegistry(), open_tracer("router", os.environ)
    LaneReadings(registry, directory.num_attaches)
    server = RouterServer(
        config,
        directory,
        keyring.gate,
        administration=administration,
        limiter=limiter,
        telemetry=RouterTelemetry(RouterMetrics(registry), tracer),
    )
    exporter = exporting(
        ExporterKind.ROUTER,
        registry,
        config=config.telemetry,
        exporters=RedisExporterList(config.redis_url, prefix=config.prefix),
        health=server.health,
    )
    try:
        await keyring.start()
        listening(await server.start())
        async with exporter:
            await stop.wait()
            await asyncio.wait_for(server.stop(), STOP_LIMIT_S)
    finally:
        await deployments.close()
        await keyring.close()
        await records.close()
        await reports.close()
        await limiter.close()
        await counted.close()
        tracer.close()


def main() -> None:
    """Runs the router that the environment describes. Exits with 0 after SIGTERM or SIGINT."""
    try:
        config = _config()
    except ConfigurationError as error:
        sys.exit(str(error))
    set_up_logging(config.telemetry, "router")
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run_until_signalled(config))
            sys.stderr.flush()
            os._exit(0)  # a model that is being fetched in a thread would hold up an orderly exit
    except ConfigurationError as error:
        last_words(str(error), config.telemetry.log_format)
        sys.exit(1)


def _config() -> RouterConfig:
    text = os.environ.get(CONFIG_VARIABLE)
    if text is None:
        raise ConfigurationError(f"{CONFIG_VARIABLE} is not set, but must hold the router's configuration as JSON")
    return from_json(RouterConfig, text)


async def _run_until_signalled(config: RouterConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await run_router(config, stop, listening=lambda port: _tell(config.host, port))
    except TimeoutError:
        log.warning("stopping took longer than %g s: some streams were cut off", STOP_LIMIT_S)


def _tell(host: str, port: int) -> None:
    print(json.dumps({"host": host, "port": port}), flush=True)
    log.info("listening on %s, port %d", host, port)


if __name__ == "__main__":
    main()
