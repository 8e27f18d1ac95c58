"""The run file: where a running `shardline serve --name NAME` tells the other commands how to reach it.

It lies in a folder that only its user can read (0700, the file 0600), since the address of Redis in it may hold a
password. It knows nothing of what runs behind the endpoints.
"""

import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.processes.process_identity import ProcessIdentity

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class NotRunningError(ConfigurationError):
    """No `serve` of this name is running, or it left its run file behind when it died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """What a running `serve` says of itself."""

    name: str
    endpoints: tuple[str, ...]  # of the routers, `host:port` each
    tls: bool = False  # whether TLS is spoken there
    local_endpoints: tuple[str, ...] = ()  # of the same routers, `unix:path` each, where they speak TLS elsewhere
    redis_url: str = field(repr=False)  # may hold a password
    redis_prefix: str  # what the names of all its keys begin with
    pid: int
    started: float  # seconds since 1970
    ready: float | None = None  # seconds since 1970; None until everything is ready
    start_s: dict[str, float] = field(default_factory=dict)  # seconds of each phase of the start, once it is ready
    process_started: int = 0  # ticks after the host's boot: another process may get the same number; 0: not known


def run_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of this user's run files: `$XDG_RUNTIME_DIR/shardline`, else a private one under the temp folder."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "shardline"
    temporary = environment.get("TMPDIR") or tempfile.gettempdir()
    return Path(temporary) / f"shardline-{os.getuid()}"


def run_file_path(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the run file of this name lies, whether or not it is there.

    Raises:
        ConfigurationError: the name cannot be a file's name.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"--name is {name!r}, but must be 1 to 64 letters, digits, dots, dashes or underscores, "
            f"and begin with a letter, a digit or an underscore"
        )
    return run_folder(environment) / f"{name}.json"


def write_run_file(run_file: RunFile, environment: Mapping[str, str] = os.environ) -> Path:
    """Writes the run file in one piece and returns its path; a dead process's file is replaced.

    Raises:
        ConfigurationError: another living process holds the name, or the folder cannot be made private.
    """
    path = run_file_path(run_file.name, environment)
    _make_private_folder(path.parent)
    with _folder_lock(path.parent):
        holder = _peek(path)
        if holder is not None and holder.pid != run_file.pid and _is_alive(holder):
            raise ConfigurationError(
                f"a server named {run_file.name!r} is running already (process {holder.pid}); "
                f"stop it, or give this one another --name"
            )
        _replace(path, to_json(run_file))
    return path


def read_run_file(name: str, environment: Mapping[str, str] = os.environ) -> RunFile:
    """The run file of a `serve` that is alive.

    Raises:
        NotRunningError: there is no such file, or the process that wrote it is gone.
        ConfigurationError: the file is broken, or another user could have written it.
    """
    path = run_file_path(name, environment)
    try:
        _check_private(path.parent)
        _check_private(path)
        run_file = from_json(RunFile, path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotRunningError(
            f"no server named {name!r} is running on this machine: start one with `shardline serve`, "
            f"or name a router with --endpoint"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if not _is_alive(run_file):
        raise NotRunningError(
            f"the server named {name!r} (process {run_file.pid}, started "
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(run_file.started))}) is no longer running: "
            f"start it again with `shardline serve`"
        )
    return run_file


def live_run_files(environment: Mapping[str, str] = os.environ) -> list[RunFile]:
    """Those of all servers of this user that are alive on this machine."""
    live = []
    for path in sorted(run_folder(environment).glob("*.json")):
        with suppress(ConfigurationError):  # dead, broken, or of somebody else
            live.append(read_run_file(path.stem, environment))
    return live


def remove_run_file(name: str, pid: int, environment: Mapping[str, str] = os.environ) -> None:
    """Removes the run file if it is still that of process `pid`; anything else is left alone."""
    path = run_file_path(name, environment)
    if not path.parent.is_dir():
        return
    with _folder_lock(path.parent):
        holder = _peek(path)
        if holder is not None and holder.pid == pid:
            path.unlink(missing_ok=True)


def _make_private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {folder} for the run file: {error.strerror}") from error
    _check_private(folder)


def _check_private(path: Path) -> None:
    """Refuses what others could have planted: temp folders are open to everyone, and so is a predictable name."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"{path} is a symbolic link, which another user may have planted: remove it")
    if status.st_uid != os.getuid():
        raise ConfigurationError(f"{path} belongs to user {status.st_uid}, not to you ({os.getuid()}): remove it")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(
            f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):o}): "
            f"run `chmod go-rwx {path}`, or remove it"
        )


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Two servers that start at once must not both find a name free."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _peek(path: Path) -> RunFile | None:
    """What lies there, if it can be read: an unreadable leftover holds no name."""
    try:
        return from_json(RunFile, path.read_text("utf-8"))
    except (OSError, ConfigurationError):
        return None


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of either; mkstemp makes it 0600."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_alive(run_file: RunFile) -> bool:
    """Whether the process that wrote it lives; one of another user counts as well. A container that is started again
    gives the same number to another life."""
    if run_file.pid <= 0:
        return False
    try:
        os.kill(run_file.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return run_file.process_started in (0, ProcessIdentity.of(run_file.pid).started)
