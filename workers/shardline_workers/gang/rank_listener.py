"""The leader's port: whoever proves that it is a rank of this gang becomes a member; everyone else is sent away."""

import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from shardline_protos import gang_pb2
from shardline_workers.gang.framed_connection import FramedConnection
from shardline_workers.gang.gang_address import GangAddress
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.handshake import HandshakeError, challenge, framed_for_handshake
from shardline_workers.gang.product_version import product_version
from shardline_workers.gang.step_channel import MAX_FRAME_BYTES

MAX_TALK_BYTES = 1 << 20
_MAX_STRANGERS = 64  # that may be proving themselves at once; more wait in the system's queue
_MEMBER_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A rank process with both of its connections."""

    claims: gang_pb2.Claims
    talk: FramedConnection
    steps: FramedConnection


@dataclass(slots=True)
class _Half:
    """A rank process whose second connection is still to come."""

    claims: gang_pb2.Claims
    talk: FramedConnection


@dataclass(slots=True)
class _Open:
    """What was accepted and is not a member yet."""

    halves: dict[bytes, _Half] = field(default_factory=dict)
    strangers: set[FramedConnection] = field(default_factory=set)


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
            arrived: gets each rank process, in a thread of its own.
            refused: gets a line about whoever was sent away.

        Raises:
            OSError: there is no such address here.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=_MAX_STRANGERS)
        self.address = GangAddress(host=host, port=self._socket.getsockname()[1], secret=secrets.token_bytes(32))
        self._limits, self._arrived, self._refused = limits, arrived, refused
        self._open, self._lock = _Open(), threading.Lock()
        self._room = threading.Semaphore(_MAX_STRANGERS)
        self._is_closed = False
        self._thread = threading.Thread(target=self._listen, name="gang listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes the port away, and sends away who has not arrived."""
        self._is_closed = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        with self._lock:
            for connection in (*self._open.strangers, *(half.talk for half in self._open.halves.values())):
                connection.shut()

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
            self._open.strangers.add(connection)
        try:
            self._admit(connection)
        except HandshakeError as error:
            connection.close()
            self._refused(f"{peer} connected to the port of the gang's ranks and was sent away: {error}")
        finally:
            with self._lock:
                self._open.strangers.discard(connection)
            self._room.release()

    def _admit(self, connection: FramedConnection) -> None:
        member = secrets.token_bytes(_MEMBER_BYTES)
        wholes: list[Arrival] = []

        def admit(claims: gang_pb2.Claims) -> None:
            if claims.version != product_version():
                raise HandshakeError(f"it is of version {claims.version}, and this leader of {product_version()}")
            if not claims.member:
                self._keep_half(member, _Half(claims, connection))
                return
            wholes.append(self._whole(claims.member, connection))

        challenge(connection, self.address.secret, member=member, limit_s=self._limits.handshake_s, admit=admit)
        for whole in wholes:
            self._arrived(whole)

    def _keep_half(self, member: bytes, half: _Half) -> None:
        half.talk.most_bytes = MAX_TALK_BYTES
        with self._lock:
            self._open.halves[member] = half

    def _whole(self, member: bytes, steps: FramedConnection) -> Arrival:
        with self._lock:
            half = self._open.halves.pop(member, None)
        if half is None:
            raise HandshakeError("its first connection is unknown")
        steps.most_bytes = MAX_FRAME_BYTES
        return Arrival(claims=half.claims, talk=half.talk, steps=steps)
