"""Ctrl-C at the right moment."""

import _thread
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_when(*moments: threading.Event) -> Iterator[None]:
    """Interrupts the main thread, as Ctrl-C does, a little after each of the moments."""

    def interrupt() -> None:
        for moment in moments:
            if moment.wait(20):
                # What was sent before the moment is to be on the terminal already.
                threading.Event().wait(0.3)
                _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()
