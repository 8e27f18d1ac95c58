"""A rank's connections to its leader: one to talk, and one for the steps of each assignment."""

import os
import socket

from shardline_protos import gang_pb2
from shardline_workers.gang.framed_connection import FramedConnection
from shardline_workers.gang.gang_address import GangAddress
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.handshake import HandshakeError, framed_for_handshake, say_hello
from shardline_workers.gang.host_identity import host_identity, host_name
from shardline_workers.gang.product_version import product_version
from shardline_workers.gang.rank_listener import MAX_TALK_BYTES


class LeaderConnections:
    """Opens and proves them."""

    def __init__(self, address: GangAddress, *, rank: int | None) -> None:
        """Connects to nobody yet.

        Args:
            address: the leader's.
            rank: the only one that this process may become; None: any.
        """
        self._address = address
        self._rank = rank
        self._member = b""
        self._limits = GangLimits()  # until the leader has said which are its own

    def open_talk(self) -> tuple[FramedConnection, GangLimits]:
        """The first connection, and how patient the leader says that ranks must be.

        Raises:
            OSError: there is no leader at its address.
            HandshakeError: it is not the leader of this gang.
        """
        connection, welcome = self._open()
        connection.most_bytes = MAX_TALK_BYTES
        self._member = welcome.member
        patience = welcome.patience
        self._limits = GangLimits(
            beat_s=patience.beat_s, silence_s=patience.silence_s, loading_silence_s=patience.loading_silence_s
        )
        return connection, self._limits

    def open_steps(self) -> socket.socket:
        """A connection for the steps of one assignment; it is the caller's.

        Raises:
            OSError, HandshakeError: see `open_talk`.
        """
        connection, _ = self._open()
        return connection.detach()

    def _open(self) -> tuple[FramedConnection, gang_pb2.Welcome]:
        address, limits = self._address, self._limits
        opened = socket.create_connection((address.host, address.port), timeout=limits.join_s)
        connection = framed_for_handshake(opened, limit_s=limits.handshake_s)
        claims = gang_pb2.Claims(
            member=self._member,
            version=product_version(),
            rank=self._rank,
            host=host_name(),
            host_identity=host_identity(),
            pid=os.getpid(),
        )
        try:
            # The leader may be busy with others: it answers when it has come to this one.
            return connection, say_hello(connection, address.secret, claims=claims, limit_s=limits.join_s)
        except HandshakeError:
            connection.close()
            raise
