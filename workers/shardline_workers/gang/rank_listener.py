"""The leader's port: whoever proves that it is a rank of this gang becomes a member; everyone else is sent away."""

import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from shardline_protos import gang_pb2
from shardline_workers.gang.framed_connection import FramedConnection
from shardline_workers.gang.gang_address import GangAddress
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.handshake import HandshakeError, challenge, framed_for_handshake
from shardline_workers.gang.product_version import product_version

MAX_TALK_BYTES = 1 << 20  # of a message, once a connection is proved
_MAX_STRANGERS = 64  # that may be proving themselves at once; more wait in the system's queue
_MEMBER_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A connection that has proved itself."""

    member: bytes  # the name of its rank process
    claims: gang_pb2.Claims
    connection: FramedConnection

    @property
    def is_for_steps(self) -> bool:
        """Whether its rank process had come before."""
        return bool(self.claims.member)


class RankListener:
    """Listens until closed."""

    def __init__(
        self,
        host: str,
        *,
        limits: GangLimits,
        arrived: Callable[[Arrival], None],
        refused: Callable[[str], None],
    ) -> None:
        """Opens a free port.

        Args:
            host: this host's address by which rank processes reach it, and which others do not.
            limits: how patient to be.
            arrived: gets each connection that was proved, in a thread of its own.
            refused: gets a line about whoever was sent away.

        Raises:
            OSError: there is no such address here.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=_MAX_STRANGERS)
        self.address = GangAddress(host=host, port=self._socket.getsockname()[1], secret=secrets.token_bytes(32))
        self._limits, self._arrived, self._refused = limits, arrived, refused
        self._members: set[bytes] = set()
        self._strangers: set[FramedConnection] = set()
        self._lock = threading.Lock()
        self._room = threading.Semaphore(_MAX_STRANGERS)
        self._is_closed = False
        self._thread = threading.Thread(target=self._listen, name="gang listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes the port away, and sends away who has not proved itself."""
        self._is_closed = True
        self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._strangers:
                connection.shut()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            self._room.acquire()
            try:
                connection, peer = self._socket.accept()
            except OSError as error:
                if self._is_closed:
                    return
                self._refused(f"a connection could not be accepted: {error}")  # one that is gone again, say
                self._room.release()
                continue
            threading.Thread(target=self._meet, args=(connection, peer[0]), name="gang hello", daemon=True).start()

    def _meet(self, accepted: socket.socket, peer: str) -> None:
        connection = framed_for_handshake(accepted, limit_s=self._limits.handshake_s)
        with self._lock:
            self._strangers.add(connection)
        try:
            arrival = self._proved(connection)
        except HandshakeError as error:
            connection.close()
            self._refused(f"{peer} connected to the port of the gang's ranks and was sent away: {error}")
        else:
            connection.most_bytes = MAX_TALK_BYTES
            self._arrived(arrival)
        finally:
            with self._lock:
                self._strangers.discard(connection)
            self._room.release()

    def _proved(self, connection: FramedConnection) -> Arrival:
        member = secrets.token_bytes(_MEMBER_BYTES)
        claims = challenge(
            connection, self.address.secret, member=member, limits=self._limits, admit=self._refuse_strange
        )
        name = claims.member or member
        self._members.add(name)
        return Arrival(member=name, claims=claims, connection=connection)

    def _refuse_strange(self, claims: gang_pb2.Claims) -> None:
        if claims.version != product_version():
            raise HandshakeError(f"it is of version {claims.version}, and this leader of {product_version()}")
        if claims.member and claims.member not in self._members:
            raise HandshakeError("its first connection is unknown")
