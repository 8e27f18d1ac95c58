"""The flags of `shardline serve` beside the model and its names."""

import argparse
from typing import Any

from shardline_cluster.cli.flags.access_flags import add_access_flags
from shardline_cluster.cli.flags.engine_flags import add_engine_flags
from shardline_cluster.cli.flags.launcher_flags import add_ray_flags, add_replan_flags
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.flags.redis_flags import add_redis_flags
from shardline_cluster.cli.flags.telemetry_flags import add_telemetry_flags
from shardline_cluster.cli.flags.tls_flags import add_tls_flags
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.queue.durability import Durability, parse_durability
from shardline_cluster.queue.lane_names import DEFAULT_PREFIX
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.serve.serve_options import LauncherKind

TERMS = {"default": QueueTerms(), "short": QueueTerms.short()}


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them, in groups."""
    _add_network_flags(parser.add_argument_group("network", "where clients find it, and where it finds Redis"))
    add_access_flags(parser.add_argument_group("access"))
    add_tls_flags(parser.add_argument_group("TLS"))
    _add_fleet_flags(parser.add_argument_group("fleet", "how many copies of the model, and who starts them"))
    add_engine_flags(parser)
    add_telemetry_flags(parser.add_argument_group("metrics and logs"))


def _add_network_flags(group: Any) -> None:
    add_listen_flags(group)
    group.add_argument(
        "--routers", metavar="N", type=int, default=1, help="router processes on that port (default %(default)s)"
    )
    add_queue_flags(group, otherwise="an embedded one")


def add_listen_flags(group: Any) -> None:
    """Adds the flags that say where routers listen."""
    group.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default %(default)s)"
    )
    group.add_argument(
        "--grpc-port",
        metavar="PORT",
        type=number_from(0, 65_535, whole=True),
        default=50051,
        help="0 takes any free one (default %(default)s)",
    )


def add_queue_flags(group: Any, *, otherwise: str) -> None:
    """Adds the flags of Redis and of what lies in it; `otherwise` says what counts where no Redis is named."""
    add_redis_flags(group, otherwise=otherwise)
    group.add_argument(
        "--redis-prefix",
        metavar="TEXT",
        default=DEFAULT_PREFIX,
        help="what all its keys begin with (default %(default)s)",
    )
    group.add_argument(
        "--durability",
        type=_durability,
        default=Durability.RELAXED,
        metavar="{none,relaxed}",
        help="what Redis may lose: relaxed is the last second or two, if the machine fails (default relaxed)",
    )
    group.add_argument(
        "--queue-terms", choices=sorted(TERMS), default="default", help="leases and holds; `short` is for tests"
    )


def _add_fleet_flags(group: Any) -> None:
    group.add_argument("--replicas", metavar="N", type=int, default=1, help="copies of the model (default %(default)s)")
    group.add_argument(
        "--launcher",
        choices=[kind.value for kind in LauncherKind],
        help="who starts replicas: ray (the default where Ray is installed) or local, plain processes",
    )
    add_ray_flags(group, told="join this Ray cluster instead of starting one")
    add_replan_flags(group)


def _durability(text: str) -> Durability:
    try:
        return parse_durability(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
