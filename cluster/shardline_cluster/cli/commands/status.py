"""`shardline status`: what runs, what waits, and how the replicas are. Reads Redis, asks no process."""

import argparse
import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardline_cluster.cli.flags.redis_flags import add_redis_flags, redis_url
from shardline_cluster.cli.router_address import add_name_flag
from shardline_cluster.cli.run_file import read_run_file
from shardline_cluster.cli.status_table import render
from shardline_cluster.fleet.cluster_status import ClusterStatus, looking_once, observe
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue
from shardline_cluster.queue.terms import QueueTerms

_DESCRIPTION = """\
Shows the deployed models, their queues and their replicas, as they stand in Redis: it works while routers and replicas
are down.
"""
_EPILOG = """\
columns:
  READY        replicas that take requests now, of those that are wanted
  WAITING      requests in the queue; OLDEST WAIT is how long the first of them stands there
  SHAPE        ranks that share the replica's model: tp x pp x dp of them
  LEASE        how long a replica that falls silent is still believed
  WEIGHTS      memory of all ranks together, as in KV CACHE
  HOST:PID     where a replica runs, and its process there; of several ranks, their leader
  REASON       why a replica is not ready, or not in the shape that was asked for

examples:
  shardline status
  shardline status --name mine
  shardline status --redis-url redis://10.0.0.5:6379/0 --json
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        help="show models, queues and replicas",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    group = parser.add_argument_group("where the cluster is")
    add_redis_flags(group, otherwise="that of --name")
    group.add_argument(
        "--redis-prefix",
        metavar="TEXT",
        help=f"what its keys begin with (default: that of --name, or {DEFAULT_PREFIX})",
    )
    add_name_flag(group)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Reads the cluster once and prints it.

    Raises:
        ConfigurationError: no Redis is named, and no server of this name runs here.
        QueueUnavailableError: Redis does not answer.
    """
    status = asyncio.run(read_status(find_queue(arguments, os.environ)))
    print(to_json(status) if arguments.json else render(status), end="\n" if arguments.json else "")
    return 0


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """Where a cluster's keys lie."""

    redis_url: str = field(repr=False)  # may hold a password
    prefix: str


def find_queue(arguments: argparse.Namespace, environment: Mapping[str, str]) -> QueueAddress:
    """The flags, else the environment, else the run file of the server of this name.

    Raises:
        ConfigurationError: none of them names a Redis.
    """
    url = redis_url(arguments, environment)
    if url:
        return QueueAddress(url, arguments.redis_prefix or DEFAULT_PREFIX)
    run_file = read_run_file(arguments.name, environment)
    return QueueAddress(run_file.redis_url, arguments.redis_prefix or run_file.redis_prefix)


async def read_status(address: QueueAddress) -> ClusterStatus:
    """Connects to Redis and reads the whole cluster."""
    deployments = deployments_on_redis(address.redis_url, prefix=address.prefix)
    reports = RedisFleetReportStore(address.redis_url, prefix=address.prefix)
    try:
        return await observe(
            deployments,
            reports,
            looking_once(
                lambda lane: RedisRequestQueue(address.redis_url, lane, prefix=address.prefix, terms=QueueTerms())
            ),
        )
    finally:
        await deployments.close()
        await reports.close()
