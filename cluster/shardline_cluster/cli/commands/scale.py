"""`shardline scale NAME N`: another number of replicas of a deployed model."""

import argparse
from typing import Any

from shardline_cluster.cli.admin_calls import admin_calls
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.router_address import add_router_flags
from shardline_cluster.fleet.deployment import MOST_REPLICAS
from shardline_protos import admin_pb2 as pb

_DESCRIPTION = """\
Changes how many replicas serve a deployed model. Those that are too many hand over what they work on. With 0 requests
are still accepted, and wait.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "scale",
        help="change a model's number of replicas",
        description=_DESCRIPTION,
    )
    parser.add_argument("deployment", metavar="NAME", help="of a deployed model, as `shardline status` shows it")
    parser.add_argument("replicas", metavar="N", type=number_from(0, MOST_REPLICAS, whole=True), help="how many")
    add_router_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Scales.

    Raises:
        ShardlineError: no router answers, or there is no such deployment.
    """
    request = pb.ScaleDeploymentRequest(name=arguments.deployment, replicas=arguments.replicas)
    with admin_calls(arguments) as calls:
        scaled = calls.call("ScaleDeployment", request)
    print(f"{scaled.name}: replicas wanted {scaled.replicas}, ready now {scaled.ready_replicas}")
    return 0
