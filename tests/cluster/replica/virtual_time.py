"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "every task waits for ever"
            self.jumped_s += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped_s


class VirtualStepThread:
    """Implements `StepThread` on such a loop: what the work slept passes on the loop's clock."""

    def __init__(self) -> None:
        self._slept_s = 0.0
        self._turn = asyncio.Lock()

    def sleep(self, seconds: float) -> None:
        self._slept_s += seconds

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.ensure_future(self._run(work))

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._turn:
            result = work()
            seconds, self._slept_s = self._slept_s, 0.0
            await asyncio.sleep(seconds)
            return result

    def close(self) -> None:
        pass


def run_virtually(test: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; hours pass in no time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(test)
