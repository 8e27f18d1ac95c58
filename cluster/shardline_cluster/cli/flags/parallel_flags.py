"""The flags of a replica's shape: `plan` asks what they should be, `serve` and `deploy` take them."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.engine_bounds import MOST_RANKS

_AUTO = "auto"
_SIZES = (
    ("tensor", "ranks that share each matrix, inside one node"),
    ("pipeline", "stages, each with a range of layers"),
    ("expert", "parts over which experts are dealt; 1: each rank has a cut of all"),
    ("data", "groups that attend to other requests and step together"),
)


def add_size_flags(group: Any, *, default: int | None) -> None:
    """Adds the four sizes and `--enable-expert-parallel`; None as the default is auto."""
    for name, told in _SIZES:
        group.add_argument(
            f"--{name}-parallel-size",
            type=_size,
            default=default,
            metavar="N",
            help=f"{told}; a number or auto (default {_AUTO if default is None else default})",
        )
    group.add_argument(
        "--enable-expert-parallel",
        action="store_true",
        help="deal experts over all ranks of a stage instead of cutting each",
    )


def add_shape_flags(group: Any) -> None:
    """Adds what `serve` and `deploy` ask of the shape of replicas."""
    defaults = EngineOptions()
    add_size_flags(group, default=defaults.tensor_parallel_size)
    group.add_argument(
        "--rank-resource",
        metavar="NAME",
        default=defaults.rank_resource,
        help="resource of Ray of which each rank takes 1 (default: GPU; none on a CPU, where ranks share the cores)",
    )
    group.add_argument(
        "--replan",
        action=argparse.BooleanOptionalAction,
        default=defaults.replan,
        help="run in a smaller shape while GPUs are missing, and go back when they have returned (the default)",
    )


def _size(text: str) -> int | None:
    if text.lower() == _AUTO:
        return None
    if not text.lstrip("+-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor {_AUTO}")
    return int(number_from(1, MOST_RANKS, whole=True)(text))
