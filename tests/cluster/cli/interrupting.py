"""Ctrl-C at the right moment."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def interrupt_once_shown(text: str) -> Iterator[None]:
    """Interrupts the main thread, as Ctrl-C does, once standard output has shown this text."""
    shown, is_shown = list[str](), threading.Event()
    write = sys.stdout.write

    def watched_write(piece: str) -> int:
        shown.append(piece)
        if text in "".join(shown):
            is_shown.set()
        return write(piece)

    def interrupt() -> None:
        if is_shown.wait(30):
            _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    with pytest.MonkeyPatch.context() as patch, _interruptible():
        patch.setattr(sys.stdout, "write", watched_write)
        thread.start()
        yield
        thread.join()


@contextmanager
def _interruptible() -> Iterator[None]:
    """A suite that a shell runs in the background inherits that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
