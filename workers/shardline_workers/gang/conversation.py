"""Talk between the leader and one rank, with signs of life from both, whatever their other threads do.

An empty frame is a beat. One thread beats and listens, so a process that is stopped, or whose interpreter is held up,
falls silent.
"""

import threading
import time
from collections.abc import Callable

from shardline_workers.gang.framed_connection import ConnectionLostError, FramedConnection

_BEAT = b""


class Conversation:
    """One end of it. Takes the connection over."""

    def __init__(
        self,
        connection: FramedConnection,
        *,
        beat_s: float,
        silence_s: float,
        hear: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        """Takes all parts; nothing runs before `start`.

        Args:
            connection: to the other end.
            beat_s: between two beats.
            silence_s: after which the other end is lost; may be changed at any time.
            hear: gets every message, in the conversation's thread.
            lost: is told once why there will be no more, unless this end closed it; in the conversation's thread.
        """
        self._connection = connection
        self._beat_s = beat_s
        self.silence_s = silence_s
        self._hear, self._lost = hear, lost
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gang beat", daemon=True)

    def start(self) -> None:
        """Begins to beat and to listen."""
        self._thread.start()

    def say(self, message: bytes) -> None:
        """Sends a message, which must not be empty.

        Raises:
            ConnectionLostError: nothing can be sent any more.
        """
        self._connection.send(message)

    def close(self) -> None:
        """Ends it, if it was started from another thread with it."""
        self._is_closing.set()
        self._connection.shut()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._talk()
        except ConnectionLostError as error:
            if not self._is_closing.is_set():
                self._lost(str(error))
        finally:
            self._connection.close()

    def _talk(self) -> None:
        heard_s = time.monotonic()
        beat_due_s = heard_s
        while not self._is_closing.is_set():
            if time.monotonic() >= beat_due_s:
                self.say(_BEAT)
                beat_due_s = time.monotonic() + self._beat_s
            try:
                message = self._connection.receive(beat_due_s - time.monotonic())
            except TimeoutError:
                # A frame that takes long to come whole is silence too: what is said here is short.
                if time.monotonic() - heard_s > self.silence_s:
                    raise ConnectionLostError(f"it has shown no sign of life for {self.silence_s:g} s") from None
                continue
            heard_s = time.monotonic()
            if message != _BEAT:
                self._hear(message)
