"""The Redis of one `serve`: an embedded server that is started again on its data, or one that somebody else runs."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from shardline_cluster.errors import EmbeddedServerError
from shardline_cluster.processes.back_off import BackOff
from shardline_cluster.processes.child_process import describe_exit
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer
from shardline_cluster.queue.server_binary import find_server_binary

POLL_S = 0.1
BACK_OFF = BackOff(first_s=0.2, longest_s=10.0, healthy_s=30.0)


class EmbeddedRedis:
    """Keeps an embedded server running. Blocking calls run in one thread, which lives as long as the server may."""

    def __init__(self, durability: Durability, *, say: Callable[[str], None]) -> None:
        self._durability = durability
        self._say = say
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="redis")
        self._starting: asyncio.Future[EmbeddedServer] | None = None

    @property
    def url(self) -> str:
        """Where it is to be found, over all restarts."""
        return self._running.url

    async def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            EmbeddedServerError: it cannot be found or started.
        """
        program = find_server_binary()
        self._say(f"starting Redis: {program}")
        start = partial(EmbeddedServer.start, None, self._durability, binary=program)
        self._starting = asyncio.get_running_loop().run_in_executor(self._starter, start)
        await asyncio.shield(self._starting)  # who is told to end meanwhile must stop what comes of it

    async def keep(self) -> None:
        """Starts the server again whenever it ends, until this task is cancelled."""
        failures, started_s = 0, time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            code = self._running.exit_code()
            if code is None:
                continue
            failures = BACK_OFF.failures_after(failures, healthy_for_s=time.monotonic() - started_s)
            self._say(f"Redis {describe_exit(code)}; starting it again on the same data")
            await asyncio.sleep(BACK_OFF.pause_s(failures))
            started_s = time.monotonic()
            await self._restart()

    async def stop(self) -> None:
        """Stops the server and deletes its data."""
        if self._starting is not None:
            with suppress(EmbeddedServerError):  # it never started
                server = await self._starting
                await asyncio.get_running_loop().run_in_executor(self._starter, server.stop)
        self._starter.shutdown()

    async def _restart(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._starter, self._running.restart)
        except EmbeddedServerError as error:
            self._say(f"Redis did not come back: {error}")

    @property
    def _running(self) -> EmbeddedServer:
        assert self._starting is not None, "the server was started"
        return self._starting.result()
