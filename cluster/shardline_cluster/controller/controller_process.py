"""The controller as a plain process, over replicas that are plain processes too.

    SHARDLINE_CONTROLLER_CONFIG='{…}' python -m shardline_cluster.controller.controller_process

SIGTERM ends it in order: its replicas drain first where the configuration says so, since nobody would keep them. Killed
in any other way it leaves them alone, and its successor finds them. Only one lives in a folder at a time.
"""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.process_launcher import ProcessLauncher
from shardline_cluster.controller.redis_controller import controller_on_redis
from shardline_cluster.controller.scrape_targets import controller_exporting
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.telemetry.log_output import last_words, set_up_logging

CONFIG_VARIABLE = "SHARDLINE_CONTROLLER_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalControllerConfig:
    """What the process needs beside the controller's own configuration."""

    controller: ControllerConfig
    folder: str  # of the replicas; see ProcessLauncher
    owner_pid: int  # the process in whose lifetime replicas live
    drain_at_exit_s: float | None = (
        None  # how long replicas may drain when this process is told to end; None: they stay
    )


async def run_controller(config: LocalControllerConfig) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    launcher = ProcessLauncher(Path(config.folder), owner_pid=config.owner_pid)
    registry, holder = CollectorRegistry(), f"{socket.gethostname()}:{config.folder}"
    controller = controller_on_redis(config.controller, launcher, holder=holder, registry=registry)
    try:
        async with controller_exporting(controller, registry, config.controller):
            await controller.run(stop)
        if config.drain_at_exit_s is not None:
            await controller.stop_replicas(config.drain_at_exit_s)
    finally:
        await controller.close()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder's lock.

    Raises:
        ConfigurationError: another controller lives here.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "controller.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another controller keeps the replicas in {folder}: stop it first") from None
        yield


def main() -> None:
    """Runs the controller that the environment describes."""
    try:
        config = from_json(LocalControllerConfig, os.environ[CONFIG_VARIABLE])
    except KeyError:
        sys.exit(f"{CONFIG_VARIABLE} is not set, but must hold the controller's configuration as JSON")
    except ConfigurationError as error:
        sys.exit(str(error))
    telemetry = config.controller.telemetry
    set_up_logging(telemetry, "controller")
    try:
        with alone_in(Path(config.folder)):
            asyncio.run(run_controller(config))
    except ConfigurationError as error:
        last_words(str(error), telemetry.log_format)
        sys.exit(1)


if __name__ == "__main__":
    main()
