"""A Redis server of our own, as a child process on a unix socket in a private directory.

Each one lives in a directory of its own under a root that only this user can open:

    ROOT/redis-TOKEN/owner.lock    locked for as long as the owner lives: the kernel unlocks it, whatever kills it
                     redis.sock
                     data/         unless the caller keeps the data elsewhere

Whoever starts a server first deletes the directories that nobody has locked: what a killed owner left.
"""

import fcntl
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from shardline_cluster.errors import EmbeddedServerError
from shardline_cluster.processes.child_process import describe_exit, start_child, stop_child
from shardline_cluster.queue.durability import Durability, check_supported
from shardline_cluster.queue.server_binary import find_server_binary

LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes on Linux and 104 on macOS
START_TIMEOUT_S = 60.0  # reading a large append-only file takes its time
STOP_GRACE_S = 2.0  # what it has answered lies in the system's hands by then, killed or not
POLL_S = 0.02
SHOWN_LOG_BYTES = 2_000


class EmbeddedServer:
    """A running server. It dies with this process, however that ends."""

    def __init__(self, binary: Path, home: "_Home", *, data: Path, durability: Durability) -> None:
        self._binary = binary
        self._home = home
        self._data = data
        self._durability = durability
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls, folder: Path | None, durability: Durability, *, binary: Path | None = None, root: Path | None = None
    ) -> "EmbeddedServer":
        """Starts a server and waits until it answers.

        Its data lies in `folder` and is found again by the next server there; None: in a private directory that is
        deleted at the end. Call it from a thread that lives as long as the program (see `start_child`).

        Raises:
            EmbeddedServerError: there is no program to start, it did not start, or `folder` is in use.
            ConfigurationError: the durability is not supported.
        """
        check_supported(durability)
        program = binary or find_server_binary()
        home = _Home(root or default_root())
        try:
            server = cls(program, home, data=home.data_folder(folder), durability=durability)
            server._launch()
        except BaseException:
            home.remove()
            raise
        return server

    @property
    def url(self) -> str:
        """Where it is to be found."""
        return f"unix://{self._home.socket}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._child is not None, "a server was launched"
        return self._child.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._child is not None, "a server was launched"
        return self._child.poll()

    def restart(self) -> None:
        """Starts it again on its data, at the same address; stops it first if it still runs."""
        assert self._child is not None, "a server was launched"
        stop_child(self._child, grace_s=STOP_GRACE_S)
        self._launch()

    def stop(self) -> None:
        """Stops the server and removes its private directory. Again is harmless."""
        if self._child is not None:
            stop_child(self._child, grace_s=STOP_GRACE_S)
        self._home.remove()

    def _launch(self) -> None:
        self._home.socket.unlink(missing_ok=True)
        with self._log_file().open("wb") as log:
            self._child = start_child([str(self._binary), *self._options()], output=log)
        self._wait_until_it_answers(self._child)

    def _options(self) -> list[str]:
        persistence = {
            Durability.NONE: ["--appendonly", "no"],
            Durability.RELAXED: ["--appendonly", "yes", "--appendfsync", "everysec"],
        }
        return [
            *("--port", "0", "--unixsocket", str(self._home.socket), "--unixsocketperm", "700"),
            *("--dir", str(self._data), "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
            *persistence[self._durability],
        ]

    def _log_file(self) -> Path:
        return self._home.folder / "server.log"

    def _wait_until_it_answers(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers_ping(self._home.socket):
            code = child.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            what = f"did not answer within {START_TIMEOUT_S} s" if code is None else describe_exit(code)
            stop_child(child, grace_s=0)
            told = self._log_file().read_bytes()[-SHOWN_LOG_BYTES:].decode(errors="replace")
            raise EmbeddedServerError(f"the embedded server {self._binary} {what}; its last words:\n{told}")


class _Home:
    """The private directory of one server, and the locks that tell that its owner lives."""

    def __init__(self, root: Path) -> None:
        _make_private(root)
        with _locked(root / "start.lock", wait=True):  # nobody cleans what is just being made
            _remove_leftovers(root)
            self.folder = root / f"redis-{secrets.token_hex(4)}"
            self.folder.mkdir(mode=0o700)
            self._locks = [_locked(self.folder / "owner.lock", wait=False)]
        self.socket = self.folder / "redis.sock"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            self.remove()
            raise EmbeddedServerError(
                f"the socket's path {self.socket} has more than {LONGEST_SOCKET_PATH} bytes: "
                "set XDG_RUNTIME_DIR or TMPDIR to a shorter directory"
            )

    def data_folder(self, kept: Path | None) -> Path:
        """Where the data is to lie: in `kept`, which is locked against a second server, or in here."""
        folder = self.folder / "data" if kept is None else kept
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if kept is not None:
            try:
                self._locks.append(_locked(kept / "shardline.lock", wait=False))
            except BlockingIOError:
                raise EmbeddedServerError(
                    f"the folder {kept} is in use by another embedded server: stop that one, or give another folder"
                ) from None
        return folder

    def remove(self) -> None:
        """Deletes the directory and gives the locks back."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for lock in self._locks:
            lock.close()
        self._locks = []


def default_root() -> Path:
    """Where servers' directories lie: under the user's run-time directory, else in the temporary one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
        return Path(runtime) / "shardline"
    return Path(tempfile.gettempdir()) / f"shardline-{os.getuid()}"


def answers_ping(path: Path) -> bool:
    """Whether a server on this socket has read its data and serves."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _make_private(root: Path) -> None:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{root} must be a directory that belongs to you and that nobody else can open (mode 0700): "
            "remove it, or set XDG_RUNTIME_DIR to another one"
        )


def _locked(path: Path, *, wait: bool) -> IO[bytes]:
    """An open file with a lock that ends with this process at the latest. BlockingIOError: another process has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


def _remove_leftovers(root: Path) -> None:
    for folder in root.glob("redis-*"):
        try:
            lock = _locked(folder / "owner.lock", wait=False)
        except OSError:  # its owner lives, or another start is removing it
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
