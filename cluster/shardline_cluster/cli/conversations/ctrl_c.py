"""Ctrl-C while a stream is read.

Python raises KeyboardInterrupt between any two instructions. Inside gRPC that can leave one of its locks taken for
ever: then not even the request can be cancelled any more, and the command hangs. So another thread closes the stream,
and the reader, whom gRPC tells so in its own time, is interrupted where it harms nothing.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from shardline import CompletionStream
from shardline.errors import StreamClosedError


@contextmanager
def interrupted_between_events(stream: CompletionStream) -> Iterator[None]:
    """Ctrl-C inside the block closes the stream that is read there; a second one is raised at once.

    Belongs to the main thread. Where Ctrl-C is ignored, as in a job in the background, it stays so.

    Raises:
        KeyboardInterrupt: Ctrl-C came. The stream is closed, and its request is not cancelled yet.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    presses = _Presses(stream)
    try:
        yield
    except StreamClosedError:
        if not presses.came:
            raise
    finally:
        presses.end()
    if presses.came:
        raise KeyboardInterrupt


class _Presses:
    """Hears Ctrl-C from its birth to `end`."""

    def __init__(self, stream: CompletionStream) -> None:
        self.came = False
        self._stream = stream
        # What is to be closed, or nothing. May be put into wherever the main thread stands.
        self._told: SimpleQueue[CompletionStream | None] = SimpleQueue()
        self._closer = threading.Thread(target=self._close_when_told, name="ctrl-c", daemon=True)
        self._closer.start()
        signal.signal(signal.SIGINT, self._hear)

    def end(self) -> None:
        """Ctrl-C is as it was."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._told.put(None)
        self._closer.join()

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who presses again waits for nothing
        self.came = True
        self._told.put(self._stream)

    def _close_when_told(self) -> None:
        stream = self._told.get()
        if stream is not None:
            stream.close()
