"""A router as a process.

    SHARDLINE_ROUTER_CONFIG='{…}' python -m shardline_cluster.router.router_process

When it listens it writes one line to standard output, `{"host": …, "port": …}`; its log goes to standard error. SIGTERM
ends it within ten seconds: it takes no new calls, sends open streams to other routers, and lets their requests live on.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.processes.event_loop import new_event_loop
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_on_redis import STOP_LIMIT_S, router_on_redis
from shardline_cluster.telemetry.log_output import last_words, set_up_logging

CONFIG_VARIABLE = "SHARDLINE_ROUTER_CONFIG"

log = logging.getLogger(__name__)


async def run_router(config: RouterConfig, stop: asyncio.Event, *, listening: Callable[[int], None]) -> None:
    """Serves until `stop` is set. `listening` is told the port. Raises as `router_on_redis`."""
    async with router_on_redis(config, os.environ) as port:
        listening(port)
        await stop.wait()


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
