"""Tasks that outlive the call that began them: kept from being collected, looked at when they fail, ended together."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class BackgroundTasks:
    """All tasks of one owner, whose name stands in the log where one fails."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], *, for_client: bool = False) -> "asyncio.Task[T]":
        """Begins a task. `for_client`: its error belongs to a client, who may be gone, and not in the log."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_look_at if for_client else self._complain)
        return task

    async def cancel_all(self) -> None:
        """Ends all tasks, and waits until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _complain(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of %s failed", self._owner, exc_info=error)


def _look_at(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()
