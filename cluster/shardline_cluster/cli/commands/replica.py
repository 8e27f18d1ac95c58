"""`shardline replica NAME`: one replica of a deployed model, kept by whoever starts this command."""

import argparse
import asyncio
import socket
from typing import Any

from shardline_cluster.cli.flags.config_file import add_config_flag
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.flags.role_flags import add_role_flags, checked_redis_url, queue_terms
from shardline_cluster.cli.flags.telemetry_flags import add_telemetry_flags, telemetry_of
from shardline_cluster.controller.controller import draw_incarnation
from shardline_cluster.controller.replica_keeper import SPEC_VARIABLE
from shardline_cluster.errors import UnknownDeploymentError
from shardline_cluster.fleet.asked_shape import fixed_plan, least_plan
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.gang import Gang
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.serve.become import become

_DESCRIPTION = """\
Runs one replica of a deployed model in the foreground, until SIGTERM, Ctrl-C or `shardline drain`: it takes requests
from the model's queue beside the replicas that a controller keeps, or instead of them (shardline scale NAME 0). Nobody
starts it again but whoever started it.
"""
_EPILOG = """\
example:
  shardline replica smollm2:135m --redis-url redis://redis.internal:6379
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "replica",
        help="run one replica, for a cluster of several hosts",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("deployment", metavar="NAME", help="of a deployed model, as `shardline status` shows it")
    parser.add_argument(
        "--replicas-on-host",
        metavar="N",
        type=number_from(1, 1024, whole=True),
        default=1,
        help="share cores and memory of this host with so many, this one too (default %(default)s)",
    )
    add_role_flags(parser)
    add_telemetry_flags(parser.add_argument_group("metrics and logs"))
    parser.set_defaults(metrics_port=0)  # several may run on one host
    add_config_flag(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Becomes the replica.

    Raises:
        ConfigurationError: the flags do not fit together, or Redis will not do.
        UnknownDeploymentError: no model is deployed under this name.
        QueueUnavailableError: Redis does not answer, so that nobody knows what is deployed.
    """
    url = checked_redis_url(arguments)
    deployment = asyncio.run(find_deployment(url, prefix=arguments.redis_prefix, name=arguments.deployment))
    spec = ReplicaSpec(
        deployment=deployment,
        replica=f"{deployment.lane}-{socket.gethostname()}",
        incarnation=draw_incarnation(),
        gang=Gang(plan=fixed_plan(deployment.options) or least_plan(deployment.options)),
        redis_url=url,
        prefix=arguments.redis_prefix,
        terms=queue_terms(arguments),
        replicas_on_host=arguments.replicas_on_host,
        memory_sharers=arguments.replicas_on_host,
        telemetry=telemetry_of(arguments),
    )
    become("replica.replica_process", {SPEC_VARIABLE: to_json(spec)})


async def find_deployment(url: str, *, prefix: str, name: str) -> Deployment:
    """What is deployed under a name. Raises as `run`."""
    records = deployments_on_redis(url, prefix=prefix, call_timeout_s=5.0)
    try:
        await records.refresh()
    finally:
        await records.close()
    deployed = records.values
    if name not in deployed:
        known = ", ".join(sorted(deployed)) or "none"
        raise UnknownDeploymentError(
            f"{name!r} is not deployed; deployed are: {known}; `shardline deploy MODEL --as {name}` deploys it"
        )
    return deployed[name]
