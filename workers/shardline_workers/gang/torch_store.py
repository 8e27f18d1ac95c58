"""The store by which ranks of torch's groups find each other. The leader hosts it, at the address of its listener.

It has no proof of its own: who reaches the port can disturb a group that is being made, though not read what it says.
"""

import socket
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from shardline_workers.gang.assignment import StoreAddress


def host_store(host: str, *, limit_s: float) -> TCPStore:
    """Opens one at a free port of this host's address.

    Args:
        host: the address; no other one of this host is listened at.
        limit_s: how long anyone waits for a key.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    port = listening.getsockname()[1]
    return TCPStore(
        host,
        port,
        is_master=True,
        timeout=timedelta(seconds=limit_s),
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )


def join_store(address: StoreAddress, *, limit_s: float) -> Store:
    """Connects to the leader's."""
    return TCPStore(address.host, address.port, timeout=timedelta(seconds=limit_s), wait_for_workers=False)
