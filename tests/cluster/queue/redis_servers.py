"""The Redis and Valkey servers on which tests run: each kind that this machine has, one of each for a test session."""

import functools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
