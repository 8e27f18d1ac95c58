"""The one thread that touches the engine, so that heartbeat and commit never wait for a step."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class StepThread(Protocol):
    """Runs work in order, one at a time, away from the event loop."""

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Queues `work`; its result, or what it raised, comes in the future. Cancelling that does not stop it."""
        ...

    def close(self) -> None:
        """Lets the thread end after the work that it has begun."""
        ...


class DaemonStepThread:
    """Implements `StepThread`. A daemon: a step that never returns does not keep the process from exiting."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="step", daemon=True).start()

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """See `StepThread.run`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._work.put(lambda: _deliver(loop, done, work))
        return done

    def close(self) -> None:
        """Lets the thread end."""
        self._work.put(None)

    def _run(self) -> None:
        _tell_name("step")
        while (work := self._work.get()) is not None:
            work()


def _tell_name(name: str) -> None:
    """Tells the system this thread's name, by which tools show who computes: Python 3.11 keeps it to itself."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)


def _deliver(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", work: Callable[[], Any]) -> None:
    """Runs `work` here and hands what comes of it to the loop, which may have ended meanwhile."""
    try:
        result, error = work(), None
    except BaseException as raised:  # handed on, whatever it is: the caller fails with it
        result, error = None, raised
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, done, result, error)


def _settle(done: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
