"""A rank's process:

    SHARDLINE_GANG_SECRET=… python -m shardline_workers.gang.rank_process --leader HOST:PORT [--rank RANK]

The secret stands in the environment, since arguments are seen by everyone on a host.
"""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardline_workers.gang.gang_address import SECRET_VARIABLE, GangAddress
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.parent_death import die_with_parent
from shardline_workers.gang.product_version import product_version

if TYPE_CHECKING:
    from shardline_workers.gang.rank_service import Locate

EXIT_NO_LEADER = 2


def serve_leader(
    address: GangAddress,
    *,
    rank: int | None = None,
    limits: GangLimits | None = None,
    environment: Mapping[str, str] = os.environ,
    locate: "Locate" = lambda files: files,
) -> None:
    """Is a rank of a gang until its leader dismisses it. A leader that is lost ends the *process*.

    Args:
        address: the leader's.
        rank: the only one that this process may become; None: any.
        limits: how patient to be; the leader's must be the same.
        environment: says where compiler and cache of native kernels are.
        locate: from a model's files on the leader's host to those on this one.

    Raises:
        OSError: there is no leader at this address.
        HandshakeError: it is not the leader of this gang.
    """
    # What takes long to import comes first: from hello on this process must show signs of life.
    from shardline_protos import gang_pb2
    from shardline_workers.gang.handshake import framed_for_handshake, say_hello
    from shardline_workers.gang.host_identity import host_identity, host_name
    from shardline_workers.gang.rank_listener import MAX_TALK_BYTES
    from shardline_workers.gang.rank_service import RankService
    from shardline_workers.gang.step_channel import MAX_FRAME_BYTES

    limits = limits or GangLimits()
    claims = gang_pb2.Claims(
        version=product_version(),
        rank=rank,
        host=host_name(),
        host_identity=host_identity(),
        pid=os.getpid(),
    )
    connections = []
    for most_bytes in (MAX_TALK_BYTES, MAX_FRAME_BYTES):
        opened = socket.create_connection((address.host, address.port), timeout=limits.join_s)
        connection = framed_for_handshake(opened, limit_s=limits.handshake_s)
        claims.member = say_hello(connection, address.secret, claims=claims, limit_s=limits.join_s)
        connection.most_bytes = most_bytes
        connections.append(connection)
    talk, steps = connections
    RankService(talk, steps, limits=limits, environment=environment, locate=locate).run()


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
