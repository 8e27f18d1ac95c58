"""The embedded server is private, dies with its owner, leaves nothing behind and keeps what it is told to keep."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError, EmbeddedServerError
from shardline_cluster.queue import server_binary
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer, answers_ping, default_root
from tests.cluster.queue.redis_servers import server_binaries

pytestmark = pytest.mark.redis
BINARIES = server_binaries()

OWNER = """
import sys, time
from pathlib import Path
from shardline_cluster.queue.durability import Durability
from shardline_cluster.queue.embedded_server import EmbeddedServer
server = EmbeddedServer.start(None, Durability.RELAXED, root=Path(sys.argv[1]))
print(server.url, server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(params=list(BINARIES.values()), ids=list(BINARIES))
def binary(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path: sockets have a limit."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"sl-test-{os.getpid()}-{time.monotonic_ns() % 10**9}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def started(root: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    servers: list[EmbeddedServer] = []

    def start(folder: Path | None = None, durability: Durability = Durability.RELAXED, **kw: Path) -> EmbeddedServer:
        servers.append(EmbeddedServer.start(folder, durability, root=root, **kw))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def ask(server: EmbeddedServer, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(server.url.removeprefix("unix://"))
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(65536).decode()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


def test_a_server_answers_when_start_returns(started: Callable[..., EmbeddedServer], binary: Path) -> None:
    server = started(binary=binary)

    assert ask(server, "PING") == "+PONG\r\n"
    assert "noeviction" in ask(server, "CONFIG GET maxmemory-policy")
    assert "yes" in ask(server, "CONFIG GET appendonly")
    assert "everysec" in ask(server, "CONFIG GET appendfsync")


def test_only_its_owner_can_open_its_directory(started: Callable[..., EmbeddedServer], root: Path) -> None:
    started()

    assert root.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_after_stop(started: Callable[..., EmbeddedServer], root: Path) -> None:
    server = started()

    server.stop()
    server.stop()

    assert server.exit_code() is not None
    assert list(root.glob("redis-*")) == []


def test_two_servers_side_by_side_do_not_collide(started: Callable[..., EmbeddedServer]) -> None:
    first, second = started(), started()

    ask(first, "SET key first")

    assert first.url != second.url
    assert ask(second, "GET key") == "$-1\r\n"


def test_kept_data_is_found_by_the_next_server(
    started: Callable[..., EmbeddedServer], tmp_path: Path, binary: Path
) -> None:
    first = started(tmp_path / "kept", binary=binary)
    ask(first, "SET key value")
    first.stop()

    second = started(tmp_path / "kept", binary=binary)

    assert ask(second, "GET key") == "$5\r\nvalue\r\n"


def test_a_folder_in_use_is_refused(started: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    started(tmp_path)

    with pytest.raises(EmbeddedServerError, match="in use by another embedded server"):
        started(tmp_path)


def test_a_killed_server_is_restarted_with_its_data_at_the_same_address(
    started: Callable[..., EmbeddedServer], binary: Path
) -> None:
    server = started(binary=binary)
    url, identity = server.url, ask(server, "INFO server")
    ask(server, "SET key value")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.exit_code() is not None)

    server.restart()

    assert server.url == url
    assert ask(server, "GET key") == "$5\r\nvalue\r\n"
    assert ask(server, "INFO server") != identity


def test_a_server_dies_with_its_killed_owner_and_the_next_start_cleans_up(
    started: Callable[..., EmbeddedServer], root: Path
) -> None:
    living = started()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(root)], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    url, _pid = owner.stdout.readline().decode().split()
    path = Path(url.removeprefix("unix://"))

    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not answers_ping(path))
    left_behind = path.parent.is_dir()
    started()

    assert left_behind
    assert not path.parent.exists()
    assert ask(living, "PING") == "+PONG\r\n"


def test_a_program_that_does_not_start_is_explained(started: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory today\nexit 3\n")
    broken.chmod(0o755)

    with pytest.raises(EmbeddedServerError, match=r"exited with 3(.|\n)*no memory today"):
        started(binary=broken)


def test_a_directory_that_others_can_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)

    with pytest.raises(EmbeddedServerError, match="nobody else can open"):
        EmbeddedServer.start(None, Durability.RELAXED, root=tmp_path / "open")


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="shorter directory"):
        EmbeddedServer.start(None, Durability.RELAXED, root=tmp_path / ("x" * 100))

    assert list((tmp_path / ("x" * 100)).glob("redis-*")) == []


def test_strict_durability_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="`strict` is not supported yet"):
        EmbeddedServer.start(None, Durability.STRICT)


def test_a_machine_without_any_server_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(server_binary, "packaged_binary", lambda: None)

    with pytest.raises(EmbeddedServerError, match=r"install one with .*--redis-url"):
        server_binary.find_server_binary()


def test_a_server_that_is_too_old_is_passed_over_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.2.1 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(server_binary, "PROGRAMS", ("redis-server",))
    monkeypatch.setattr(server_binary, "packaged_binary", lambda: None)

    with pytest.raises(EmbeddedServerError, match=r"too old: .*6\.2\.1"):
        server_binary.find_server_binary()


def test_the_default_root_follows_the_run_time_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    inside = default_root()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))

    assert inside == tmp_path / "shardline"
    assert default_root().name == f"shardline-{os.getuid()}"
