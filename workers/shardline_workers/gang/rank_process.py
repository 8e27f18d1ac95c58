"""A rank's process:

    SHARDLINE_GANG_SECRET=… python -m shardline_workers.gang.rank_process --leader HOST:PORT [--rank RANK]

The secret stands in the environment, since arguments are seen by everyone on a host.
"""

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardline_workers.gang.gang_address import SECRET_VARIABLE, GangAddress
from shardline_workers.gang.parent_death import die_with_parent

if TYPE_CHECKING:
    from shardline_workers.gang.rank_service import Locate

EXIT_NO_LEADER = 2


def serve_leader(
    address: GangAddress,
    *,
    rank: int | None = None,
    environment: Mapping[str, str] = os.environ,
    locate: "Locate" = lambda files: files,
) -> None:
    """Is a rank of a gang until its leader dismisses it. A leader that is lost ends the *process*.

    Args:
        address: the leader's.
        rank: the only one that this process may become; None: any.
        environment: says where compiler and cache of native kernels are.
        locate: from a model's files on the leader's host to those on this one.

    Raises:
        OSError: there is no leader at this address.
        HandshakeError: it is not the leader of this gang.
    """
    # What takes long to import comes first: from hello on this process must show signs of life.
    from shardline_workers.gang.leader_connections import LeaderConnections
    from shardline_workers.gang.rank_service import RankService

    connections = LeaderConnections(address, rank=rank)
    talk, patience = connections.open_talk()
    RankService(talk, connections.open_steps, patience=patience, environment=environment, locate=locate).run()


def main() -> None:
    """Runs until dismissed."""
    die_with_parent(os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all processes, but the leader decides
    parser = argparse.ArgumentParser(prog="rank_process", description="Be a rank of a leader's gang.")
    parser.add_argument("--leader", required=True, metavar="HOST:PORT", help="the leader's listener")
    parser.add_argument("--rank", type=int, help="the only rank that this process may become")
    arguments = parser.parse_args()
    try:
        address = GangAddress.parse(arguments.leader, os.environ)
        os.environ.pop(SECRET_VARIABLE)
        serve_leader(address, rank=arguments.rank)
    except Exception as error:
        print(f"rank process {os.getpid()} found no leader: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_NO_LEADER)
    os._exit(0)  # threads of native code need no orderly end


if __name__ == "__main__":
    main()
