"""The step channel over TCP: a connection for each rank, proved at its beginning (see handshake.py)."""

from collections.abc import Sequence

from shardline_workers.gang.framed_connection import ConnectionLostError, FramedConnection
from shardline_workers.gang.step_channel import PeerLostError


class StreamSender:
    """Implements `StepSender`. The connections are not its own: `close` leaves them open."""

    def __init__(self, connections: Sequence[FramedConnection]) -> None:
        self._connections = connections

    def send(self, frame: bytes) -> None:
        """See `StepSender.send`."""
        for connection in self._connections:
            try:
                connection.send(frame)
            except ConnectionLostError as error:
                raise PeerLostError(f"a rank's connection for steps is lost: {error}") from error

    def close(self) -> None:
        """Does nothing: they serve the next model."""


class StreamReceiver:
    """Implements `StepReceiver`. The connection is not its own: `close` leaves it open."""

    def __init__(self, connection: FramedConnection) -> None:
        self._connection = connection

    def receive(self, limit_s: float) -> bytes:
        """See `StepReceiver.receive`."""
        try:
            return self._connection.receive(limit_s)
        except ConnectionLostError as error:
            raise PeerLostError(f"the connection for steps is lost: {error}") from error

    def close(self) -> None:
        """Does nothing: it serves the next model."""
