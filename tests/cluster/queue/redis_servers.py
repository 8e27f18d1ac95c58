"""The Redis and Valkey servers on which tests run: each kind that this machine has, one of each for a test session."""

import functools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer
from shardline_cluster.queue.server_binary import packaged_binary


@functools.cache
def server_binaries() -> Mapping[str, Path]:
    """Programs by the name under which tests show them."""
    found = {"redis": shutil.which("redis-server"), "valkey": packaged_binary()}
    return {name: Path(program) for name, program in found.items() if program is not None}


@contextmanager
def running_server(binary: Path, durability: Durability = Durability.NONE) -> Iterator[EmbeddedServer]:
    """A private server for as long as the block lasts."""
    with TemporaryDirectory(prefix="shardline-test-") as folder:  # short: sockets have a limit
        server = EmbeddedServer.start(None, durability, binary=binary, root=Path(folder) / "r")
        try:
            yield server
        finally:
            server.stop()


class RedisServers:
    """Servers by kind, each started when a test first asks for it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, EmbeddedServer] = {}

    def url(self, kind: str) -> str:
        """The address of the session's server of this kind."""
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(running_server(server_binaries()[kind]))
        return self._running[kind].url

    def stop(self) -> None:
        """Stops all."""
        self._stack.close()


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[RedisServers]:
    servers = RedisServers()
    yield servers
    servers.stop()
