"""Calls to a launcher, each in a thread of its own with a deadline.

Ray's control calls block without a word while its head is away, for minutes if need be. So none is made on the event
loop, and none is waited for longer than its deadline. One that is late goes on in its thread; until it has come back, a
call of the same name is refused instead of piling up behind it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from shardline_cluster.errors import ShardlineError

T = TypeVar("T")


class LauncherBusyError(ShardlineError):
    """A call to the launcher has not come back in time; it may still take effect."""

    code = "UNAVAILABLE"
    retryable = True


class LauncherCalls:
    """Runs blocking calls beside the event loop. To be used from one loop only."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._running: set[str] = set()

    async def call(self, name: str, function: Callable[[], T]) -> T:
        """What `function` returns or raises.

        Raises:
            LauncherBusyError: it took longer than the deadline, or an earlier call of this name still runs.
        """
        if name in self._running:
            raise LauncherBusyError(f"the launcher still works on an earlier {name}")
        done = self._start(name, function)
        try:
            return await asyncio.wait_for(asyncio.shield(done), self._deadline_s)
        except TimeoutError:
            done.add_done_callback(_forget_outcome)
            raise LauncherBusyError(f"the launcher did not answer {name} within {self._deadline_s:g} s") from None

    def _start(self, name: str, function: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._running.add(name)

        def finish(result: T | None, error: BaseException | None) -> None:
            self._running.discard(name)
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # None only where T is None

        def work() -> None:
            outcome: tuple[T | None, BaseException | None]
            try:
                outcome = (function(), None)
            except BaseException as error:
                outcome = (None, error)
            with contextlib.suppress(RuntimeError):  # the loop was closed while the call hung
                loop.call_soon_threadsafe(finish, *outcome)

        # A daemon: a call that hangs must not keep the program from ending, as an executor's thread would.
        threading.Thread(target=work, name=f"launcher-{name}", daemon=True).start()
        return done


def _forget_outcome(done: asyncio.Future[T]) -> None:
    """Takes a late error out, so that nobody complains that it was never looked at."""
    if not done.cancelled():
        done.exception()
