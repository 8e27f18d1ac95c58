"""A child process that is started again when it ends, after a pause that grows, saying why."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardline_cluster.errors import ShardlineError
from shardline_cluster.processes.back_off import BackOff
from shardline_cluster.processes.child_process import describe_exit, start_child, stop_child
from shardline_cluster.processes.log_cap import cap_log
from shardline_cluster.telemetry.log_output import message_of

POLL_S = 0.1
START_POLL_S = 0.02  # while others wait for it
SHOWN_LOG_BYTES = 2_000

Say = Callable[[str], None]


class ChildFailedError(ShardlineError):
    """A child ended, or did not get ready, when everything depended on it."""

    code = "FAILED_PRECONDITION"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """How a child is started: every time in the same way."""

    name: str  # for people
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    stop_grace_s: float
    back_off: BackOff = field(default_factory=lambda: BackOff(first_s=0.5, longest_s=30.0, healthy_s=30.0))
    before_start: Callable[[], None] = lambda: None
    explain: Callable[[int], str] = describe_exit  # an exit code in words
    on_exit: Callable[[int], None] = lambda code: None


class SupervisedChild:
    """Keeps one child running. `start`, then `keep` in a task, then `stop`; all on one loop in the main thread."""

    def __init__(self, plan: ChildPlan, *, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._say = say
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._failures = 0
        self._stopping = False

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self._child is not None, "the child was started"
        return self._child.pid

    @property
    def up_for_s(self) -> float:
        """How long the present process has been running."""
        return self._clock() - self._started_s

    def start(self) -> None:
        """Starts the process."""
        self._plan.before_start()
        with self._plan.log.open("ab") as log:
            self._child = start_child(self._plan.command, environment=self._plan.environment, output=log)
        self._started_s = self._clock()

    async def printed(self, text: str, *, within_s: float) -> None:
        """Waits until the child has printed `text`.

        Raises:
            ChildFailedError: it ended before, or took too long.
        """
        await self.until(lambda: text.encode() in self._plan.log.read_bytes(), within_s=within_s)

    async def until(self, is_so_far: Callable[[], bool], *, within_s: float) -> None:
        """Waits until the child is so far.

        Raises:
            ChildFailedError: it ended before, or took too long.
        """
        give_up = self._clock() + within_s
        while not is_so_far():
            code = self._exit_code()
            if code is not None or self._clock() > give_up:
                what = f"was not ready within {within_s:.0f} s" if code is None else self._plan.explain(code)
                raise ChildFailedError(f"{self._plan.name} {what}; its last words:\n{self.last_words()}")
            await asyncio.sleep(START_POLL_S)

    async def keep(self) -> None:
        """Starts the child again whenever it ends, until it is stopped."""
        while True:
            code = await self._ended()
            if self._stopping:
                return
            self._failures = self._plan.back_off.failures_after(self._failures, healthy_for_s=self.up_for_s)
            pause_s = self._plan.back_off.pause_s(self._failures)
            self._say(f"{self._plan.name} {self._plan.explain(code)}; starting it again in {pause_s:g} s")
            self._plan.on_exit(code)
            await asyncio.sleep(pause_s)
            if self._stopping:
                return
            self.start()

    async def replace(self) -> None:
        """Ends the present process, so that `keep` starts another one."""
        await asyncio.to_thread(self._end_process)

    async def stop(self) -> None:
        """Ends the process for good."""
        self._stopping = True
        await asyncio.to_thread(self._end_process)

    def last_words(self) -> str:
        """The end of what the child printed."""
        text = self._plan.log.read_bytes()[-SHOWN_LOG_BYTES:].decode(errors="replace").strip()
        return "\n".join(map(message_of, text.splitlines()))

    async def _ended(self) -> int:
        while True:
            code = self._exit_code()
            if code is not None:
                return code
            cap_log(self._plan.log)
            await asyncio.sleep(POLL_S)

    def _exit_code(self) -> int | None:
        assert self._child is not None, "the child was started"
        return self._child.poll()

    def _end_process(self) -> None:
        if self._child is not None:
            stop_child(self._child, grace_s=self._plan.stop_grace_s)
