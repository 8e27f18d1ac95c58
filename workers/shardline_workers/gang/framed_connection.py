"""Frames over one TCP connection: four bytes of length, highest first, and so many bytes."""

import select
import socket
import struct
import threading
import time

_LENGTH = struct.Struct(">I")
_READ_BYTES = 64 * 1024


class ConnectionLostError(Exception):
    """The connection is of no more use; the text says why."""


class FramedConnection:
    """One end. Any thread sends, one receives. Takes the socket over."""

    def __init__(self, connection: socket.socket, *, most_bytes: int, send_limit_s: float) -> None:
        """Sets the socket up.

        Args:
            connection: is open.
            most_bytes: of a frame; a longer one ends the connection.
            send_limit_s: how long the other end may take nothing, its buffers being full.
        """
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self.most_bytes = most_bytes
        self._send_limit_s = send_limit_s
        self._sending = threading.Lock()
        self._received = bytearray()
        self._is_closed = False

    @property
    def local_host(self) -> str:
        """The address at this end: others of the other end's network can reach it."""
        host: str = self._socket.getsockname()[0]
        return host

    def send(self, frame: bytes) -> None:
        """Sends a frame; returns before it has arrived.

        Raises:
            ConnectionLostError: it cannot be sent.
        """
        with self._sending:
            try:
                self._send_all(memoryview(_LENGTH.pack(len(frame)) + frame))
            except (OSError, ValueError) as error:
                self.shut()
                raise ConnectionLostError(f"nothing can be sent: {error}") from error

    def receive(self, limit_s: float) -> bytes:
        """Waits for the next frame.

        Raises:
            TimeoutError: it has not come whole within the limit; the next call goes on waiting for it.
            ConnectionLostError: there will be none.
        """
        deadline = time.monotonic() + limit_s
        while (frame := self._next_frame()) is None:
            self._read(deadline - time.monotonic())
        return frame

    def detach(self) -> socket.socket:
        """The connection itself, which is the caller's from now on. Nothing more must have come than was received."""
        assert not self._received, "the other end waits for a first frame"
        self._is_closed = True
        return self._socket

    def shut(self) -> None:
        """Ends the connection for both; whoever waits here or there wakes. From any thread, any number of times."""
        if not self._is_closed:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the other end did

    def close(self) -> None:
        """Ends it and frees it, once nobody sends or receives any more."""
        self.shut()
        self._is_closed = True
        self._socket.close()

    def _send_all(self, data: memoryview) -> None:
        while data:
            if not self._is_ready(select.POLLOUT, self._send_limit_s):
                raise TimeoutError(f"the other end took nothing for {self._send_limit_s} s")
            try:
                data = data[self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                continue

    def _next_frame(self) -> bytes | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > self.most_bytes:
            self.shut()
            raise ConnectionLostError(f"a frame of {length} bytes was announced; at most {self.most_bytes} may come")
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        frame = bytes(memoryview(self._received)[_LENGTH.size : end])
        del self._received[:end]
        return frame

    def _read(self, limit_s: float) -> None:
        try:
            if not self._is_ready(select.POLLIN, limit_s):
                raise TimeoutError
            data = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise ConnectionLostError(f"the connection broke: {error}") from error
        if not data:
            raise ConnectionLostError("the connection was closed")
        self._received += data

    def _is_ready(self, event: int, limit_s: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        return bool(poll.poll(max(0.0, limit_s) * 1000))
