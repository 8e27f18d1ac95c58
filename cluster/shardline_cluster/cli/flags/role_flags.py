"""What the commands for a cluster of several hosts share: `router`, `controller` and `replica` each run one process."""

import argparse
import asyncio
import os
import sys
from typing import Any

from shardline_cluster.cli.flags.redis_flags import redis_url
from shardline_cluster.cli.flags.serve_flags import TERMS, add_queue_flags
from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.fleet.deployment import DEFAULT_CLUSTER, check_cluster_name
from shardline_cluster.queue.lane_names import check_prefix
from shardline_cluster.queue.server_check import check_server
from shardline_cluster.queue.terms import QueueTerms


def add_role_flags(parser: argparse.ArgumentParser, *, cluster: str | None = None) -> None:
    """Adds the flags of the queue, and --cluster where `cluster` says what it means."""
    group = parser.add_argument_group("the cluster")
    add_queue_flags(group, otherwise="an error: hosts share a Redis")
    if cluster is not None:
        group.add_argument(
            "--cluster", metavar="NAME", default=DEFAULT_CLUSTER, help=f"{cluster} (default: %(default)r)"
        )


def checked_redis_url(arguments: argparse.Namespace) -> str:
    """The Redis of all hosts. One that does not answer yet is waited for by the process itself.

    Raises:
        ConfigurationError: none is named, or it is set up so that promises would break.
    """
    check_prefix(arguments.redis_prefix)
    check_cluster_name(getattr(arguments, "cluster", DEFAULT_CLUSTER))
    url = redis_url(arguments, os.environ)
    if url is None:
        raise ConfigurationError(
            f"`shardline {arguments.command}` needs a Redis that all hosts share: give --redis-url, or set "
            "SHARDLINE_REDIS_URL"
        )
    try:
        asyncio.run(check_server(url, arguments.durability, prefix=arguments.redis_prefix))
    except QueueUnavailableError as error:
        print(f"shardline: {error}; going on, it may come", file=sys.stderr)
    return url


def queue_terms(arguments: argparse.Namespace) -> QueueTerms:
    """The periods by which all members of the cluster live."""
    terms: Any = TERMS[arguments.queue_terms]
    assert isinstance(terms, QueueTerms)
    return terms
