"""`shardline usage`: what tenants have used, through the Admin service of a router."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from shardline_cluster.cli.admin_calls import admin_calls
from shardline_cluster.cli.router_address import add_router_flags
from shardline_cluster.cli.text_table import table
from shardline_protos import admin_pb2 as pb

_DESCRIPTION = """\
Shows how many requests of each tenant have ended, and the tokens of their prompts and outputs, for each lane: the
queue of one set of weights. A request is counted once, when it ends, whichever way. Needs a key with the scope admin,
once there are keys.
"""
_EPILOG = """\
examples:
  shardline usage
  shardline usage --tenant shop --json
"""
_COUNTERS = (
    "requests_done",
    "requests_cancelled",
    "requests_expired",
    "requests_failed",
    "prompt_tokens",
    "completion_tokens",
)
_HEADER = ("TENANT", "LANE", "DONE", "CANCELLED", "EXPIRED", "FAILED", "PROMPT TOKENS", "OUTPUT TOKENS")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "usage",
        help="show what tenants have used",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--tenant", metavar="NAME", default="", help="of this tenant alone (default: of all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_router_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Asks once and prints it.

    Raises:
        ShardlineError: no router answers, or it refuses.
    """
    with admin_calls(arguments) as calls:
        usage = calls.call("GetUsage", pb.GetUsageRequest(tenant=arguments.tenant)).usage
    if arguments.json:
        print(json.dumps({"usage": [_as_json(used) for used in usage]}))
    else:
        print(render_usage(usage), end="")
    return 0


def render_usage(usage: Sequence[pb.TenantUsage]) -> str:
    """A table for people, with sums below more than one line."""
    if not usage:
        return "No request has ended yet.\n"
    rows = [(used.tenant, used.lane, *_counters(used)) for used in usage]
    if len(rows) > 1:
        sums = (sum(column) for column in zip(*map(_counters, usage), strict=True))
        rows.append(("all", "", *sums))
    return table(_HEADER, [tuple(map(str, row)) for row in rows])


def _counters(used: pb.TenantUsage) -> tuple[int, ...]:
    return tuple(getattr(used, name) for name in _COUNTERS)


def _as_json(used: pb.TenantUsage) -> dict[str, Any]:
    return {"tenant": used.tenant, "lane": used.lane} | {name: getattr(used, name) for name in _COUNTERS}
