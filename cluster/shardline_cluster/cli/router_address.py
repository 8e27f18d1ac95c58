"""How a command finds the routers: `--endpoint`, else the run file of the server named `--name`."""

import argparse
from collections.abc import Sequence

from shardline import Client
from shardline_cluster.cli.run_file import DEFAULT_NAME, read_run_file
from shardline_cluster.errors import ShardlineError

# A router on the way to its death may still accept connections; one that lives answers far sooner.
_FIRST_ANSWER_S = 5.0


class NoRouterError(ShardlineError):
    """No router answers at any address that the command knows."""

    code = "UNAVAILABLE"
    retryable = True


def add_router_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where the routers are."""
    group = parser.add_argument_group("where the cluster is")
    group.add_argument(
        "--endpoint",
        action="append",
        metavar="HOST:PORT",
        help="address of a router, such as 127.0.0.1:50051; may be repeated: if one goes away, another takes over "
        "(default: where the server called --name listens)",
    )
    add_name_flag(group)


def add_name_flag(group: argparse._ArgumentGroup) -> None:
    """Adds the flag that names a server on this machine."""
    group.add_argument(
        "--name",
        default=DEFAULT_NAME,
        metavar="NAME",
        help="the server on this machine that `shardline serve --name NAME` started (default: %(default)r)",
    )


def router_addresses(arguments: argparse.Namespace) -> Sequence[str]:
    """The addresses of the routers.

    Raises:
        ConfigurationError: none is given and no server of this name runs here.
    """
    if arguments.endpoint:
        return list(arguments.endpoint)
    return read_run_file(arguments.name).endpoints


def connect(arguments: argparse.Namespace) -> Client:
    """A client of routers of which at least one answers now.

    Raises:
        NoRouterError: none does. People at a terminal want to know at once, not when patience is over.
    """
    client = Client(router_addresses(arguments))
    health = client.health(timeout_s=_FIRST_ANSWER_S)
    if all(entry.status == "UNREACHABLE" for entry in health):
        client.close()
        tried = ", ".join(entry.endpoint for entry in health)
        raise NoRouterError(
            f"no router answers at {tried}: is `shardline serve` running there? (The last try: {health[-1].reason})"
        )
    return client
