"""The flags of who starts replicas, and how patient a controller is with what is missing: of `serve`, `controller`."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.controller.gang_planning import ReplanTimes

_LONGEST_S = 7 * 24 * 3600
_TIMES = ReplanTimes()


def add_ray_flags(group: Any, *, told: str) -> None:
    """Adds where Ray is; `told` says what its address does."""
    group.add_argument("--ray-address", metavar="HOST:PORT", help=told)
    group.add_argument(
        "--ray-node-ip",
        metavar="ADDRESS",
        help="join by the Ray node with this address, where this machine runs several (default: any)",
    )


def add_replan_flags(group: Any) -> None:
    """Adds how long replicas of several ranks wait for what they miss."""
    seconds = number_from(0, _LONGEST_S)
    group.add_argument(
        "--replan-after",
        metavar="SECONDS",
        type=seconds,
        default=_TIMES.missing_s,
        help="that a replica's GPUs are missing before it starts in a smaller shape (default %(default)g)",
    )
    group.add_argument(
        "--replan-back-after",
        metavar="SECONDS",
        type=seconds,
        default=_TIMES.returned_s,
        help="that there is room for all of it before it goes back (default %(default)g)",
    )


def replan_times(arguments: argparse.Namespace) -> ReplanTimes:
    """What the flags say."""
    return ReplanTimes(missing_s=arguments.replan_after, returned_s=arguments.replan_back_after)
