"""`serve` in surroundings that cannot serve: it says what is wrong, and leaves nothing running."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shardline_cluster.cli.main import main
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections
from tests.bad_input.system_rows import AWAY, REAL, TOLD, Row
from tests.bad_input.told_redis import told_redis
from tests.cluster.queue.redis_servers import running_server, server_binaries

pytestmark = pytest.mark.redis

_SERVE = ("serve", "--engine", "simulated", "--launcher", "local", "--grpc-port", "0")
_BEGIN_WITH_A_FULL_DISK = """
import os, resource, sys
most = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
os.execv(sys.executable, [sys.executable, "-m", "shardline_cluster.cli.main", *sys.argv[2:]])
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Everything of a test lies in it; its name is short, as sockets want it."""
    for name in [name for name in os.environ if name.startswith("SHARDLINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("REDIS_URL", raising=False)
    with TemporaryDirectory(prefix="sl-") as made:
        monkeypatch.setenv("XDG_RUNTIME_DIR", made)
        monkeypatch.setenv("XDG_CACHE_HOME", made)
        yield Path(made)


@pytest.mark.parametrize("row", REAL, ids=lambda row: row.what)
def test_a_server_that_would_break_promises_is_refused(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    with running_server(next(iter(server_binaries().values())), Durability.RELAXED) as server:
        asyncio.run(_told(server.url, row.commands))

        _check(row, _served(row.url.format(socket=server.url.removeprefix("unix://"))), capsys)


@pytest.mark.parametrize("row", TOLD, ids=lambda row: row.what)
def test_a_server_that_says_what_does_not_do_is_refused(
    row: Row, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with told_redis(folder / "r.sock", row.info):
        _check(row, _served(f"unix://{folder / 'r.sock'}"), capsys)


@pytest.mark.parametrize("row", AWAY, ids=lambda row: row.what)
def test_a_server_that_is_not_there_is_told(row: Row, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _check(row, _served(row.url.format(socket=folder / "r.sock")), capsys)


@pytest.mark.parametrize(
    ("most_bytes", "told"),
    [
        (0, ("the system refused what was to be done", "the space that is left on the disk")),
        (1024, ("cannot write its append-only file", "make room on its disk")),
    ],
    ids=["for nothing at all", "for Redis"],
)
def test_a_full_disk_is_told(most_bytes: int, told: tuple[str, ...]) -> None:
    begin = [sys.executable, "-c", _BEGIN_WITH_A_FULL_DISK, str(most_bytes), *_SERVE]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    ended = subprocess.run(begin, capture_output=True, text=True, env=environment, timeout=50, check=False)

    assert ended.returncode == 1, ended
    assert [part for part in told if part not in ended.stderr] == [], ended
    assert "Traceback" not in ended.stderr


async def _told(url: str, commands: Sequence[str]) -> None:
    connections = RedisConnections(RedisAddress.parse(url), size=1, timeout_s=20)
    for command in commands:
        await connections.execute(*command.split())
    await connections.close()


def _served(url: str) -> int:
    return main([*_SERVE, "--redis-url", url])


def _check(row: Row, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    output = capsys.readouterr()
    assert code == 1, output
    assert [part for part in row.told if part not in output.err] == [], output
    assert len(output.err.splitlines()) == 1 and "Traceback" not in output.err, output
