"""`shardline undeploy NAME`: takes a deployed model away."""

import argparse
from typing import Any

from shardline_cluster.cli.admin_calls import admin_calls
from shardline_cluster.cli.router_address import add_router_flags
from shardline_protos import admin_pb2 as pb

_DESCRIPTION = """\
Takes deployed models away: their replicas hand back what they work on, and end. Requests that have been accepted wait
in the queue until the same model is deployed again, or until their time limit.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "undeploy",
        help="serve a model no longer",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "deployment", nargs="+", metavar="NAME", help="of a deployed model, as `shardline status` shows it"
    )
    add_router_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Takes away what is named.

    Raises:
        ShardlineError: no router answers, or there is no such deployment.
    """
    with admin_calls(arguments) as calls:
        for name in arguments.deployment:
            calls.call("DeleteDeployment", pb.DeleteDeploymentRequest(name=name))
            print(f"{name} is deployed no longer")
    return 0
