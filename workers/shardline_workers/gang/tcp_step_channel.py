"""A step channel over TCP: to other hosts, and on one host where there are no native kernels.

Every frame follows on its length, 4 bytes, the highest first. A connection may carry one channel in each direction:
both ends are made from sockets that somebody else has connected, and close them.
"""

import select
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

from shardline_workers.gang.step_channel import (
    MAX_FRAME_BYTES,
    ChannelLimits,
    PeerLateError,
    PeerLostError,
    StepChannelError,
    check_frame,
)

_LENGTH_BYTES = 4
_READ_BYTES = 256 * 1024
# A host that is gone sends no farewell: after 2 s of silence it is asked, and again each second, four times.
_KEEPALIVE = (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 4))
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def prepare_connection(connection: socket.socket, limits: ChannelLimits) -> None:
    """Sets what both ends need: small frames leave at once, and a host that is gone is noticed within seconds."""
    connection.settimeout(0.0)  # waits have limits of their own
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", round(limits.wait_s * 1000))):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class TcpStepSender:
    """Implements `StepSender`: every reader has a connection. It runs ahead by what their buffers hold."""

    def __init__(self, connections: Sequence[socket.socket], *, limits: ChannelLimits) -> None:
        """Takes the connections over.

        Args:
            connections: to all readers.
            limits: how long to wait for a reader that takes nothing.
        """
        self._links = [_Link(connection, limits) for connection in connections]

    def send(self, frame: bytes) -> None:
        """See `StepSender.send`."""
        check_frame(frame)
        data = len(frame).to_bytes(_LENGTH_BYTES, "big") + frame
        for link in self._links:
            link.check_alive()
        for link in self._links:
            link.send(data)

    def close(self) -> None:
        """See `StepSender.close`."""
        for link in self._links:
            link.close()


class TcpStepReceiver:
    """Implements `StepReceiver`."""

    def __init__(self, connection: socket.socket, *, limits: ChannelLimits) -> None:
        """Takes the connection to the writer over."""
        self._link = _Link(connection, limits)
        self._received = bytearray()

    def receive(self, limit_s: float) -> bytes:
        """See `StepReceiver.receive`."""
        end_s = time.monotonic() + limit_s
        while (frame := self._take_frame()) is None:
            self._received += self._link.receive(max(0.0, end_s - time.monotonic()))
        return frame

    def close(self) -> None:
        """See `StepReceiver.close`."""
        self._link.close()

    def _take_frame(self) -> bytes | None:
        """The first frame, where it is here in full."""
        if len(self._received) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._received[:_LENGTH_BYTES], "big")
        if not 1 <= length <= MAX_FRAME_BYTES:
            self._link.fail(
                StepChannelError(
                    f"{self._link.peer} announces a frame of {length} bytes, but a frame has 1 to {MAX_FRAME_BYTES}:"
                    " what speaks there is no rank of this version"
                )
            )
        end = _LENGTH_BYTES + length
        if len(self._received) < end:
            return None
        frame = bytes(self._received[_LENGTH_BYTES:end])
        del self._received[:end]
        return frame


class _Link:
    """One connection, and its errors: the first one stays."""

    def __init__(self, connection: socket.socket, limits: ChannelLimits) -> None:
        prepare_connection(connection, limits)
        self._connection = connection
        self._limits = limits
        self._error: StepChannelError | None = None
        self.peer = f"the process at {_name_of(connection)}"

    def check_alive(self) -> None:
        """Raises where the peer has closed its end: a first send would still succeed."""
        self._check_open()
        self._check_not_hung_up(self._poll(0, 0.0))

    def send(self, data: bytes) -> None:
        """Sends all of it."""
        self._check_open()
        remaining = memoryview(data)
        while True:
            try:
                remaining = remaining[self._connection.send(remaining) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._lose(error)
            if not remaining:
                return
            happened = self._poll(select.POLLOUT, self._limits.wait_s)
            self._check_not_hung_up(happened)
            if not happened:
                limit_ms = round(self._limits.wait_s * 1000)
                self.fail(PeerLateError(f"{self.peer} took nothing for longer than the limit of {limit_ms} ms"))

    def receive(self, limit_s: float) -> bytes:
        """Some bytes; seldom none, where the system has raised false hopes."""
        self._check_open()
        if not self._poll(select.POLLIN, limit_s):
            raise TimeoutError("no frame came within the limit")
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._lose(error)
        if not data:
            self.fail(PeerLostError(f"{self.peer} died or closed the channel"))
        return data

    def fail(self, error: StepChannelError) -> NoReturn:
        """Raises this now and at each later call."""
        self._error = error
        raise error

    def close(self) -> None:
        """Closes the connection; what was sent still arrives."""
        self._error = self._error or StepChannelError("the channel was closed")
        self._connection.close()

    def _check_not_hung_up(self, happened: int) -> None:
        if happened & _HUNG_UP:
            self.fail(PeerLostError(f"{self.peer} died or closed the channel"))

    def _lose(self, error: OSError) -> NoReturn:
        self._error = PeerLostError(f"{self.peer} is lost: {error.strerror or error}")
        raise self._error from error

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error

    def _poll(self, wanted: int, limit_s: float) -> int:
        """What of it, or of being hung up, happens within the limit; 0 for nothing."""
        poll = select.poll()
        poll.register(self._connection, wanted | _HUNG_UP)
        happened = poll.poll(limit_s * 1000)
        return happened[0][1] if happened else 0


def _name_of(connection: socket.socket) -> str:
    try:
        name = connection.getpeername()
    except OSError:
        return "a connection that is closed already"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else (name or "the other end of a socket")
