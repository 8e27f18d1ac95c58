"""`shardline drain REPLICA`: lets a replica hand over and end; another one takes its place."""

import argparse
from typing import Any

from shardline_cluster.cli.admin_calls import AdminCalls, admin_calls
from shardline_cluster.cli.router_address import add_router_flags
from shardline_protos import admin_pb2 as pb

_DESCRIPTION = """\
Lets a replica end in order: at the next token it hands its requests back with all that they have, others go on with
them, and another replica takes its place. No stream loses or repeats anything.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "drain",
        help="let a replica hand over and end; another one takes its place",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "replica",
        metavar="REPLICA",
        help="its name, as `shardline status` shows it, or its incarnation or an unambiguous beginning of that",
    )
    add_router_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Asks it to drain.

    Raises:
        ShardlineError: no router answers, there is no such replica, or it is not ready.
    """
    with admin_calls(arguments) as calls:
        request = pb.DrainReplicaRequest(incarnation=_incarnation(calls, arguments.replica))
        drained = calls.call("DrainReplica", request)
    print(f"the replica {drained.incarnation} hands its requests over, and ends")
    return 0


def _incarnation(calls: AdminCalls, replica: str) -> str:
    """Of the process that fills the place of this name; else what was given is an incarnation itself."""
    replicas = calls.call("ListReplicas", pb.ListReplicasRequest()).replicas
    return next((r.incarnation for r in replicas if r.place == replica and r.incarnation), replica)
